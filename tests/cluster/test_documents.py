"""Files as kubectl prints them are read object by object; what is broken is named."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cluster import yaml_values
from webhook.cluster.documents import Document, DocumentError, read, read_text


def objects(text, file="a.yaml"):
    return [(d.label, d.obj) for d in read_text(file, text) if isinstance(d, Document)]


def names(text, file="a.yaml"):
    return [obj["metadata"]["name"] for _, obj in objects(text, file)]


def errors(text, file="a.yaml"):
    return [(e.document, e.message) for e in read_text(file, text) if isinstance(e, DocumentError)]


def yaml_node(name):
    return f"apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n"


def json_node(name):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def test_every_document_of_a_file_has_its_index():
    text = yaml_node("a") + "---\n" + yaml_node("b")
    assert [label for label, _ in objects(text)] == ["a.yaml#0", "a.yaml#1"]


def test_empty_documents_are_skipped_and_not_counted():
    text = "---\n---\n# nothing\n---\n" + yaml_node("a") + "---\nnull\n---\n" + yaml_node("b")
    assert [label for label, _ in objects(text)] == ["a.yaml#0", "a.yaml#1"]


@pytest.mark.parametrize("text", ["", "\n\n", "---\n", "# only a comment\n"])
@pytest.mark.parametrize("file", ["a.yaml", "-"])
def test_a_file_with_nothing_in_it_yields_nothing(text, file):
    assert list(read_text(file, text)) == []


def test_an_empty_json_file_yields_nothing():
    assert list(read_text("a.json", " \n")) == []


def test_yaml_directives_do_not_disturb():
    assert names("%YAML 1.1\n---\n" + yaml_node("a")) == ["a"]


def test_three_dots_end_a_document():
    assert names(yaml_node("a") + "...\n---\n" + yaml_node("b")) == ["a", "b"]


def test_windows_line_ends_are_read():
    text = (yaml_node("a") + "---\n" + yaml_node("b")).replace("\n", "\r\n")
    assert names(text) == ["a", "b"]


def test_three_dashes_inside_a_text_do_not_part_it():
    text = yaml_node("a") + "data:\n  text: |\n    one\n    ---\n    two\n"
    ((_, obj),) = objects(text)
    assert obj["data"]["text"] == "one\n---\ntwo\n"


@pytest.mark.parametrize("kind", ["List", "NodeList"])
def test_the_items_of_a_list_count_as_documents(kind):
    listed = {"apiVersion": "v1", "kind": kind, "items": [json_node("a"), json_node("b")]}
    text = json.dumps(listed)
    assert [label for label, _ in objects(text, "a.json")] == ["a.json#0", "a.json#1"]


def test_the_index_runs_on_over_lists_and_documents():
    listed = "kind: List\napiVersion: v1\nitems:\n- {kind: A}\n- {kind: B}\n"
    text = listed + "---\n" + yaml_node("c") + "---\n" + listed
    assert [label for label, _ in objects(text)] == [f"a.yaml#{n}" for n in range(5)]


def test_items_that_leave_out_their_kind_have_that_of_their_list():
    listed = {"apiVersion": "v1", "kind": "NodeList", "items": [{"metadata": {"name": "a"}}]}
    assert objects(json.dumps(listed), "a.json") == [("a.json#0", json_node("a"))]


def test_a_list_inside_a_list_is_read_too():
    inner = {"apiVersion": "v1", "kind": "List", "items": [json_node("a")]}
    outer = {"apiVersion": "v1", "kind": "List", "items": [inner, json_node("b")]}
    assert names(json.dumps(outer), "a.json") == ["a", "b"]


def test_a_list_that_contains_itself_is_an_error():
    text = "kind: List\napiVersion: v1\nitems: &all\n- {kind: List, items: *all}\n"
    assert errors(text) == [
        ("a.yaml#0", "line 4, column 23: not YAML: *all stands inside of what it names")
    ]


def test_a_list_that_is_used_twice_by_an_alias_is_read_once():
    text = "- {kind: List, items: &all [{kind: A}]}\n- {kind: List, items: *all}\n"
    assert [label for label, _ in objects(text)] == ["a.yaml#0"]
    assert errors(text) == [("a.yaml#1", "items: this list stands in the document twice")]


@pytest.mark.parametrize("depth", [10, 900])
def test_lists_nested_too_deeply_are_an_error(depth):
    text = "[" * depth + json.dumps(json_node("a")) + "]" * depth
    assert errors(text, "a.json") == [("a.json#0", "items: Lists are nested too deeply")]


def test_an_alias_stands_for_what_it_names():
    text = "kind: A\none: &x {a: [1]}\ntwo: *x\n&k key: 1\nthree: *k\n"
    ((_, obj),) = objects(text)
    assert obj["two"] == {"a": [1]}
    assert obj["three"] == "key"


def test_an_alias_without_its_anchor_is_an_error():
    ((_, message),) = errors("kind: A\none: *x\n")
    assert message.startswith("line 2, column 6: not YAML: ")


def test_a_merged_mapping_gives_what_is_not_set():
    text = "kind: A\nbase: &b {a: 1, c: 2}\nmade: {<<: *b, a: 9}\n"
    ((_, obj),) = objects(text)
    assert obj["made"] == {"a": 9, "c": 2}


def test_of_several_merged_mappings_the_first_that_sets_a_key_counts():
    text = "kind: A\nb: [&b {a: 1}, &c {a: 2, c: 3}]\nmade: {<<: [*b, *c]}\n"
    ((_, obj),) = objects(text)
    assert obj["made"] == {"a": 1, "c": 3}


@pytest.mark.parametrize("value", ["text", "[text]"])
def test_only_mappings_are_merged(value):
    ((_, message),) = errors(f"kind: A\nmade:\n  <<: {value}\n")
    assert message.endswith("not YAML: only mappings can be merged by <<")


def test_a_key_in_quotes_merges_nothing():
    ((_, obj),) = objects('kind: A\nmade: {"<<": 1}\n')
    assert obj["made"] == {"<<": 1}


def test_keys_are_always_text():
    ((_, obj),) = objects("kind: A\nlabels: {1: a, true: b, ~: c}\n")
    assert obj["labels"] == {"1": "a", "true": "b", "~": "c"}


def test_a_key_that_is_no_text_is_an_error():
    ((_, message),) = errors("kind: A\n? [a]\n: b\n")
    assert message == "line 2, column 3: not YAML: a key must be plain text"


def test_a_list_without_items_yields_nothing():
    assert list(read_text("a.yaml", "kind: List\napiVersion: v1\nitems: []\n")) == []
    assert list(read_text("a.yaml", "kind: List\napiVersion: v1\nitems: null\n")) == []


def test_items_that_are_no_list_are_an_error():
    assert errors("kind: List\nitems: {a: b}\n") == [("a.yaml#0", "items: a list is wanted here")]


def test_a_bare_json_list_is_read_as_its_items():
    assert names(json.dumps([json_node("a"), json_node("b")]), "a.json") == ["a", "b"]


def test_json_objects_one_after_the_other_are_read_as_jq_prints_them():
    text = "\n".join(json.dumps(json_node(n)) for n in "abc")
    assert names(text, "a.json") == ["a", "b", "c"]
    assert names(text, "-") == ["a", "b", "c"]


def test_json_is_recognised_whatever_the_file_is_called():
    assert names(json.dumps(json_node("a")), "-") == ["a"]


def test_flow_yaml_that_begins_like_json_is_read():
    assert names("{apiVersion: v1, kind: Node, metadata: {name: a}}\n") == ["a"]


def test_a_broken_yaml_document_leaves_the_others():
    text = yaml_node("a") + "---\nkind: Node\nmetadata: {name: [\n---\n" + yaml_node("c")
    assert names(text) == ["a", "c"]
    ((document, message),) = errors(text)
    assert document == "a.yaml#1"
    assert message.startswith("line 8, column 1: not YAML: ")
    assert [label for label, _ in objects(text)] == ["a.yaml#0", "a.yaml#2"]


def test_an_unknown_tag_is_an_error_with_its_place():
    ((document, message),) = errors("kind: Node\nmetadata: !mine {}\n")
    assert document == "a.yaml#0"
    assert message.startswith("line 2, column 11: not YAML: ")


def test_broken_json_is_an_error_with_its_place():
    ((document, message),) = errors('{"kind": "Node",\n "metadata": nothing}', "a.json")
    assert document == "a.json#0"
    assert message.startswith("line 2, column 14: not JSON: ")


def test_broken_json_after_good_json_leaves_the_good():
    text = json.dumps(json_node("a")) + "\n{broken"
    assert names(text, "a.json") == ["a"]
    ((document, message),) = errors(text, "a.json")
    assert document == "a.json#1"
    assert message.startswith("line 2, column 2: not JSON: ")


@pytest.mark.parametrize("text", ["NaN", '{"kind": NaN}', '{"a": 1}\n{"b": Infinity}'])
def test_what_only_python_takes_for_json_is_an_error(text):
    assert len(errors(text, "a.json")) == 1


@pytest.mark.parametrize("opening", ["[", '{"a":', "{a: ", "- "])
@pytest.mark.parametrize("file", ["a.yaml", "a.json"])
def test_bottomless_nesting_is_an_error(opening, file):
    assert errors(opening * 20_000, file)


@pytest.mark.parametrize(
    ("text", "said"),
    [("just text", 'the text "just text"'), ("12", "a number"), ("true", "true or false")],
)
def test_a_document_that_is_no_object_is_an_error(text, said):
    assert errors(text) == [("a.yaml#0", f"a Kubernetes object is wanted here, not {said}")]


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "2024-01-01T00:00:00Z", "12:30:45", "1_000", "0777", "="]
)
def test_a_word_that_older_yaml_reads_otherwise_is_text(text):
    ((_, obj),) = objects(f"kind: A\nvalue: {text}\n")
    assert obj["value"] == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-1", -1),
        ("1.5", 1.5),
        ("~", None),
        ("", None),
        ('"true"', "true"),
        ("9" * 40, "9" * 40),
        (".inf", ".inf"),
        ("1.0e999", "1.0e999"),
        ("!!timestamp 2024-01-01", "2024-01-01"),
    ],
)
def test_a_plain_value_is_read_as_json_has_it(text, value):
    ((_, obj),) = objects(f"kind: A\nvalue: {text}\n")
    assert obj["value"] == value
    assert type(obj["value"]) is type(value)


def test_of_a_key_given_twice_the_last_counts():
    ((_, obj),) = objects("kind: A\nkind: B\n")
    assert obj["kind"] == "B"


def test_a_folder_is_read_with_its_folders_in_order(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.yaml", "a.yml", "sub/c.json", "notes.txt", ".hidden/d.yaml"):
        (tmp_path / name).write_text(json.dumps(json_node(name)))
    found = [Path(d.file).name for d in read([tmp_path]) if isinstance(d, Document)]
    assert found == ["a.yml", "b.yaml", "c.json"]


def test_a_folder_without_such_files_is_an_error(tmp_path: Path):
    assert list(read([tmp_path])) == [
        DocumentError(str(tmp_path), "no *.yaml, *.yml or *.json file is in this folder")
    ]


def test_a_missing_path_is_an_error_and_the_others_are_read(tmp_path: Path):
    there = tmp_path / "there.yaml"
    there.write_text(yaml_node("a"))
    missing, found = read([tmp_path / "absent.yaml", there])
    assert str(missing) == f"{tmp_path / 'absent.yaml'}: no such file or folder"
    assert isinstance(found, Document)


def test_a_path_through_a_file_is_an_error(tmp_path: Path):
    there = tmp_path / "there.yaml"
    there.write_text(yaml_node("a"))
    (error,) = read([there / "more"])
    assert isinstance(error, DocumentError)
    assert error.message.startswith("cannot be read: ")


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"kind: Node\nx: \xff\xfe\xfd\n")
    (error,) = read([tmp_path])
    assert str(error) == f"{tmp_path / 'a.yaml'}: line 2: not text in UTF-8"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark_are_read(tmp_path: Path, encoding):
    (tmp_path / "a.yaml").write_bytes(yaml_node("a").encode(encoding))
    (found,) = read([tmp_path])
    assert isinstance(found, Document)
    assert found.obj["metadata"]["name"] == "a"


def test_a_dash_is_standard_input(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(yaml_node("a").encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    (found,) = read([Path("-")])
    assert isinstance(found, Document)
    assert found.label == "-#0"


WORDS = st.text(st.characters(categories=("L", "N", "P")), max_size=20)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | WORDS
VALUES = st.recursive(
    PLAIN, lambda v: st.lists(v, max_size=4) | st.dictionaries(WORDS, v, max_size=4), max_leaves=20
)


@given(VALUES)
def test_json_reads_alike_as_yaml(value):
    text = json.dumps(value, ensure_ascii=False)
    assert list(yaml_values.documents(text)) == [value]


@given(st.text(max_size=60) | st.text("-?:&*!|>{}[],#%<\"' \n\tab1", max_size=60))
def test_whatever_a_file_holds_it_is_read_or_named(text):
    for file in ("a.yaml", "a.json", "-"):
        assert all(isinstance(d, Document | DocumentError) for d in read_text(file, text))
