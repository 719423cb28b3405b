"""Where records are kept, and what writing one leaves alone."""

from support.reports import record

from bench.files.atomic import temporary
from bench.records.store import Store


def test_a_record_that_another_process_is_writing_is_left_to_it(tmp_path):
    store, one = Store(tmp_path), record("ddim:eta=0", 10)
    store.records.mkdir(parents=True)
    with temporary(store.records / f"{one.name}.json") as theirs:
        theirs.write_text("what they have so far")
        store.write(one)
        assert theirs.read_text() == "what they have so far"
    assert [path.name for path in store.records.iterdir()] == [f"{one.name}.json"]


def test_files_of_the_same_trial_under_an_older_name_go(tmp_path):
    store, one = Store(tmp_path), record("ddim:eta=0", 10)
    store.records.mkdir(parents=True)
    path = store.write(one)
    old = path.with_name(f"older-{one.key}.film.png")
    old.touch()
    store.write(one)
    assert [left.name for left in store.records.iterdir()] == [path.name]
