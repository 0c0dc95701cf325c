"""OpenAI's interface in types: requests into the contract's terms, answers and errors out of them."""
