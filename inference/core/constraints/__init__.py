"""Constrained decoding: what an answer may be written as, from the caller's words to the mask of a step.

The life of a constraint:

1. A caller's schema, expression, grammar or tools become a `Constraint` of the engine port (`core/requests.py`;
   `core/tool_calls/constraint.py` writes tools as a structural tag, and says what its schemas are called).
2. Tenants take turns at compiling: `compile_queue`, used by `adapters/torch/constraints/grammar_cache.py`, which keeps
   compiled grammars. All that follows happens there, before the request is admitted to a step.
3. It is read: `regex/` makes a tree of an expression, `grammar_notation` rules of a grammar, `schema/` rules of a
   schema by way of the alternatives that it comes to, `structural_tags` rules of all tools at once. `numbers` and
   `string_formats` know how JSON writes what lies within bounds. What could not be held to is refused by its place.
4. What the vocabulary cannot write (`writable`) and what comes to no end is left out of the rules (`rules`); a
   constraint of which nothing is left is refused, so that no mask of a step is ever empty, and so is one whose rules
   repeat themselves before anything is written (`left_recursion`).
5. What compiling would cost is judged from the rules: `cost`.
6. `adapters/torch/constraints/compiler.py` hands the rules to xgrammar in its notation, `mask_probe.py` tries how long
   masks take, and each answer steps through the grammar in `grammars_in_use.py`: a mask of allowed tokens before each
   draw, the drawn token after it.

Everything here is pure: xgrammar is met in the adapter alone. An engine that compiles constraints itself asks
`checking`.
"""
