"""Run mutmut in the present directory with the mutations that could break one of our laws.

run.py starts this as a script, in a copy of the repository: nothing of ours may be imported
before mutmut has put its mutants where the original was.

mutmut's own mutations are about expressions. What matters here are steps that may be missing: a
sync, a check, a flag of open(2). So those are added, and what only ever ends in a TypeError, or
changes nothing but the words of a message, is left out: it would be two mutants of three.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import libcst as cst
from mutmut.__main__ import _run, collect_source_file_mutation_data
from mutmut.mutation import file_mutation, mutators
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import orig_function_and_class_names_from_key
from mutmut.workers.isolation import ForkRunner

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.mutants.hits import FOLDER, Hits, tell_where_it_ends

RESULTS = Path("results.json")
FEW = 25
"""Tests that are tried first, the fastest: nine mutants of ten die of them. What they let live
meets all tests that reach it, which for a function such as `opened` are a thousand."""


def without_a_call(node: cst.Expr) -> Iterable[cst.BaseSmallStatement]:
    """Leave out a statement that is nothing but a call: a sync, a check, a write."""
    if isinstance(node.value, cst.Call):
        yield cst.Pass()


def without_a_raise(node: cst.Raise) -> Iterable[cst.BaseSmallStatement]:
    """Leave out a raise."""
    yield cst.Pass()


def never(node: cst.If) -> Iterable[cst.If]:
    """Leave out what an if guards; where that is a raise alone, without_a_raise does."""
    body = node.body.body[0]
    is_raise = isinstance(body, cst.SimpleStatementLine) and isinstance(body.body[0], cst.Raise)
    if not is_raise:
        yield node.with_changes(test=cst.Name("False"))


def without_a_flag(node: cst.BinaryOperation) -> Iterable[cst.BaseExpression]:
    """Leave out the last of some flags: O_EXCL, O_NOFOLLOW."""
    if isinstance(node.operator, cst.BitOr):
        yield node.left


def without_a_keyword(node: cst.Call) -> Iterable[cst.Call]:
    """Leave out an argument that has a name, and so perhaps a default: dir_fd, follow_symlinks."""
    for place, arg in enumerate(node.args):
        if arg.keyword is not None:
            yield node.with_changes(args=[*node.args[:place], *node.args[place + 1 :]])


def another_text(node: cst.SimpleString) -> Iterable[cst.BaseExpression]:
    """Change a text that is a word of ours; a message has blanks in it."""
    text = node.evaluated_value
    if text and isinstance(text, str) and " " not in text and '"""' not in node.value:
        yield cst.SimpleString(repr(text + "XX"))


def another_operator(node: cst.CSTNode) -> Iterable[cst.CSTNode]:
    """Take another operator, as mutmut does; flags are without_a_flag's."""
    is_flags = isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitOr)
    return () if is_flags else mutators.operator_swap_op(node)


OPERATORS: mutators.OPERATORS_TYPE = [
    (cst.Expr, without_a_call),
    (cst.Raise, without_a_raise),
    (cst.If, never),
    (cst.BinaryOperation, without_a_flag),
    (cst.Call, without_a_keyword),
    (cst.SimpleString, another_text),
    (cst.CSTNode, another_operator),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.BaseNumber, mutators.operator_number),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.IfExp, mutators.operator_if_exp),
]

_skips = file_mutation.MutationVisitor._skip_node_and_children


def _skip(visitor: file_mutation.MutationVisitor, node: cst.CSTNode) -> bool:
    """Pass over what is in an error's message: the raise itself is left out as a whole.

    And over os.kill: another pid or signal would be somebody's who has no part in this.
    """
    if isinstance(node, cst.Raise):
        visitor._create_mutations(node)
        return True
    if isinstance(node, cst.Call) and cst.Module([]).code_for_node(node.func) == "os.kill":
        return True
    return _skips(visitor, node)


def _submit_few(submit: Callable[..., None]) -> Callable[..., None]:
    def submitted(runner: object, name: str, tests: list[str], limit: int, time: float) -> None:
        gc.freeze()  # a fork that collects garbage would go through all that is here, and copy it
        fastest = sorted(tests, key=lambda test: state().duration_by_test[test])[:FEW]
        submit(runner, name, fastest, limit, sum(state().duration_by_test[t] for t in fastest))

    return submitted


def main(patterns: list[str]) -> None:
    """Make the mutants, try those whose names match, and write what became of them."""
    told = Path("hits").absolute()
    told.mkdir(exist_ok=True)
    told.chmod(0o777)  # for the children that have no rights
    os.environ[FOLDER] = str(told)
    state()._stats = Hits()
    tell_where_it_ends()
    operators: Any = mutators.mutation_operators  # a list, which its users hold
    operators[:] = OPERATORS
    visitor: Any = file_mutation.MutationVisitor
    visitor._skip_node_and_children = _skip
    # Which tests reach which function is found out by running them all: they pass.
    runner: Any = ForkRunner
    runner.run_clean_tests = lambda runner, tests: 0
    submit = runner.submit
    runner.submit = _submit_few(submit)
    try:
        _run(patterns, max_children=None)
        found, _ = collect_source_file_mutation_data(mutant_names=patterns)
        alive = [name for data, name, _ in found if data.exit_code_by_key[name] == 0]
        runner.submit = submit
        if alive:
            _run(alive, max_children=None)
    finally:
        found, _ = collect_source_file_mutation_data(mutant_names=patterns)
        results = []
        for data, name, _ in found:
            status = status_by_exit_code[data.exit_code_by_key[name]]
            function, of_class = orig_function_and_class_names_from_key(name)
            module = str(data.path).removesuffix(".py").replace("/", ".")
            where = ".".join(filter(None, (module, of_class, function)))
            diff = get_diff_for_mutant(name, path=data.path) if status != "killed" else ""
            changed = [line for line in diff.splitlines()[3:] if line[0] in "-+"]
            results.append({"name": name, "in": where, "status": status, "diff": changed})
        RESULTS.write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
