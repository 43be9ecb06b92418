import gc

import pytest

from serving.garbage_collection import uncollected_imports


def test_the_garbage_collector_rests_during_imports_and_works_afterwards():
    frozen = gc.get_freeze_count()
    with uncollected_imports():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_an_import_that_fails_leaves_the_garbage_collector_on():
    with pytest.raises(ImportError), uncollected_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
