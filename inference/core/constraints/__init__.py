"""Constrained decoding: what an answer may be written as, from the caller's words to the mask of a step.

The life of a constraint:

1. A caller's schema, expression, grammar or tools become a `Constraint` of the engine port (`core/requests.py`;
   `core/tool_calls/constraint.py` writes tools as a structural tag).
2. It is read in the caller's terms and made exact: `json_schema` and `schema_strings` for schemas, `regex_dialect` for
   expressions, `grammar_dialect` for grammars, `structural_tags` for what holds several of them. What could not be held
   to is refused here by its name and place.
3. What it would cost is judged before anything is compiled: `regex_size` and `grammar_cost`.
4. Tenants take turns at compiling: `compile_queue`, used by `adapters/torch/constraints/grammar_cache.py`, which keeps
   compiled grammars; `compiler.py` there hands them to xgrammar, `mask_probe.py` tries how long their masks take.
5. Each answer steps through its grammar, a mask of allowed tokens before each draw and the drawn token after it:
   `adapters/torch/constraints/grammars_in_use.py`.

Everything here is pure: xgrammar is met in the adapter alone.
"""
