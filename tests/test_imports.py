"""Imports point one way: a module may import only what stands before it in ORDER, and `store` does
not know torch, transformers or `lifelong`. Imports hidden in functions count."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = """
store.errors store.records store.patches store.file store.chain store.life store.backup store.schema
store.rows store.facts store.views store.pack store.base store.index store.journal store.snapshot
store
lifelong.errors lifelong.models lifelong.lm lifelong.hooks lifelong.adapter lifelong.moments
lifelong.weights lifelong.export lifelong.encoder lifelong.ordinary lifelong.sample
lifelong.postings lifelong.kept lifelong.names
lifelong.contrary lifelong.subject lifelong.clause lifelong.relations lifelong.fact
lifelong.gates lifelong.standing
lifelong.feed lifelong.match lifelong.refer lifelong.extract lifelong.choose
lifelong.prompt lifelong.codebook lifelong.turn lifelong.phrase lifelong.say
lifelong.scope lifelong.train lifelong.methods lifelong.locate lifelong.facts
lifelong.router lifelong.generate lifelong.asking lifelong.hops lifelong.mello lifelong.view
lifelong.batching lifelong.conflicts lifelong.ripple lifelong.policy lifelong.saved
lifelong.perplexity lifelong.monitor lifelong.consolidate lifelong.replay lifelong.rebase
lifelong.alarms lifelong.suspects lifelong.trackers lifelong.watch lifelong.compaction
lifelong.report lifelong.session lifelong.runtime
lifelong.evaluate lifelong
lifelong.serve lifelong.cli
""".split()
RANK = {name: place for place, name in enumerate(ORDER)}
HEAVY = {"torch", "transformers", "sentence_transformers"}
ROOT = Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("store/**/*.py"), *ROOT.glob("lifelong/**/*.py")])


def unit(dotted: str) -> str:
    """The entry of ORDER that a module belongs to: a subpackage counts as a whole."""
    return ".".join(dotted.removesuffix(".__init__").removesuffix(".__main__").split(".")[:2])


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for alias in node.names:
                below = ROOT.joinpath(*module.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").is_file()
                yield f"{module}.{alias.name}" if is_module else module


def wrong(here: str, name: str) -> bool:
    if here.startswith("store") and name.split(".")[0] in HEAVY:
        return True
    return unit(name) != here and RANK.get(unit(name), -1) > RANK[here]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    here = unit(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert here in RANK, f"{here} has no place in ORDER"
    tree = ast.parse(path.read_text())
    relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert not relative, f"{here} has a relative import"
    bad = sorted({name for name in imported(tree) if wrong(here, name)})
    assert not bad, f"{here} imports {bad}"


def test_the_rule_catches_a_wrong_import() -> None:
    hidden = ast.parse("def f():\n    from lifelong.runtime import EditableModel")
    assert any(wrong("lifelong.lm", name) for name in imported(hidden))
    assert wrong("store.journal", "torch.nn")
    assert wrong("store.journal", "lifelong.errors")
    assert not wrong("lifelong.runtime", "store")
