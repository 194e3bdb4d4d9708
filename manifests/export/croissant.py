"""Croissant 1.0 (MLCommons): the facts of a card as JSON-LD, and where its records are, so that `mlcroissant` loads them.

Records are those of files that no longer change: the Parquet of an export beside the card, or the manifest of a pack. The tables of a corpus,
and the manifest of a pack that documents were taken out of, hold rows that readers hide: their cards do not lead there, an export does.
https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manifests.export.card_facts import CardFacts
from manifests.licences import find_licence
from manifests.packs import Pack
from manifests.store import COPY_BYTES, Store
from manifests.tables import open_part

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
PARQUET = "application/x-parquet"
SPLIT_FOLDERS = r"data/([^/]+)/.+\.parquet"
Json = dict[str, Any]


def croissant(facts: CardFacts, title: str, limits: Sequence[str], beside: str | None, store: Store) -> Json:
    """The JSON-LD of a card that lies in ``store``; ``beside`` says what of the rows an export there holds."""
    files, records = _exported(store)
    if not files and facts.kind == "pack":
        files, records = _manifests(facts, store)
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": title,
        "description": _description(facts, beside, has_records=bool(records)),
        "version": facts.version,
        "inLanguage": sorted(facts.known("language")),
        "license": [_licence(text) for text in facts.known("licence")],
        "keywords": ["speech"],
        "rai:dataLimitations": list(limits),
        "rai:machineAnnotationTools": _models(facts),
        "distribution": files,
        "recordSet": records,
    }
    return {key: value for key, value in described.items() if value}


def _description(facts: CardFacts, beside: str | None, *, has_records: bool) -> str:
    place = ", ".join(f"{name} {value}" for name, value in facts.identity.items())
    said = f"A {facts.kind} of speech: {facts.num_rows} rows, {facts.hours:.6g} hours of audio ({place})."
    if beside is not None:
        return f"{said} Beside this file lie {beside}"
    return said if has_records else f"{said} Its records are had by `stepwell manifest export`."


def _licence(text: str) -> str:
    """The licence's page at SPDX where it is a known one, else its text."""
    known = find_licence(text)
    return f"https://spdx.org/licenses/{known.spdx_id}.html" if known else text


def _models(facts: CardFacts) -> list[str]:
    names = {
        f"{model.name}{f' at {model.revision}' if model.revision else ''}"
        for made in facts.made_by or ()
        for model in made.models
    }
    return sorted(names)


def _exported(store: Store) -> tuple[list[Json], list[Json]]:
    """(distribution, record sets) of an export of Parquet at the card's own place; none where there is none."""
    paths = [path for path in store.objects("data") if path.endswith(".parquet")]
    if not paths:
        return [], []
    with open_part(store, paths[0]) as file:
        schema = file.schema_arrow
    files = {"@type": "cr:FileSet", "@id": "shards", "name": "shards", "encodingFormat": PARQUET, "includes": "data/*/*.parquet"}
    source: Json = {"fileSet": {"@id": "shards"}}
    split: Json = {"@type": "cr:Field", "@id": "rows/split", "name": "split", "description": "split of the row"}
    split["dataType"] = "sc:Text"
    split["source"] = {**source, "extract": {"fileProperty": "fullpath"}, "transform": {"regex": SPLIT_FOLDERS}}
    return [files], [_record_set("rows", [split, *_fields("rows", schema, source)])]


def _manifests(facts: CardFacts, store: Store) -> tuple[list[Json], list[Json]]:
    """(distribution, record sets) of a pack: its manifest, a file a split. Relative where the card lies in the pack."""
    opened_pack = Pack.open(facts.uri)
    if opened_pack.taken_keys:  # the manifest still has rows that readers hide
        return [], []
    pack, files, records = opened_pack.store, list[Json](), list[Json]()
    for split in facts.known("split"):
        path, key = f"manifest/{split}.parquet", f"documents_{split}"
        with pack.open(path) as file:
            digest = hashlib.sha256()
            while block := file.read(COPY_BYTES):
                digest.update(block)
        at = path if store.root == pack.root else posixpath.join(pack.root if pack.is_local else pack.uri, path)
        size = {"contentUrl": at, "contentSize": f"{pack.size(path)} B", "sha256": digest.hexdigest()}
        files.append({"@type": "cr:FileObject", "@id": path, "name": path, **size, "encodingFormat": PARQUET})
        with open_part(pack, path) as opened:
            schema = opened.schema_arrow
        records.append(_record_set(key, _fields(key, schema, {"fileObject": {"@id": path}})))
    return files, records


def _record_set(key: str, fields: list[Json]) -> Json:
    return {"@type": "cr:RecordSet", "@id": key, "name": key, "field": fields}


def _fields(record_set: str, schema: pa.Schema, source: Json) -> list[Json]:
    """A field a column that Croissant has a type for: ids in bytes and words with their times stay in the files."""
    fields = []
    for column in schema:
        kind = _type(column.type)
        if kind is None:
            continue
        told: Json = {"dataType": kind, "source": {**source, "extract": {"column": column.name}}}
        if kind == "sc:AudioObject":
            told["source"]["transform"] = {"jsonPath": "bytes"}
        if pa.types.is_list(column.type):
            told["repeated"] = True
        description = ((column.metadata or {}).get(b"description") or b"").decode()
        key = {"@id": f"{record_set}/{column.name}", "name": column.name, "description": description}
        fields.append({"@type": "cr:Field", **{k: v for k, v in key.items() if v}, **told})
    return fields


def _type(kind: pa.DataType) -> str | None:
    if pa.types.is_list(kind):
        return None if pa.types.is_nested(kind.value_type) else _type(kind.value_type)
    if pa.types.is_struct(kind):
        return "sc:AudioObject" if kind.get_field_index("bytes") >= 0 else None
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    return "sc:Text" if pa.types.is_string(kind) else None
