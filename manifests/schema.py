"""Every table of a corpus and a pack, as Arrow schemas with a unit in each name and a description on each field.

A new fact is a new column here (or in the ``adds`` schema of the annotator that knows it), never a key in a dict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from manifests.errors import ContractError

ID = pa.binary(16)
CODES = pa.list_(pa.uint16())


def field(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    """A column with its description in the schema itself."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


def required(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """A column that is never null."""
    return field(name, kind, description, nullable=False)


# What inputs say of what is said in them, and all that holds of the whole alone: not of a recording that spans were taken out of.
SAID = ("text", "translation")
OF_WHOLE = (*SAID, "pair_id")
# What a source may say of the consent of those who speak. Whatever else it says is refused: nobody could act on it.
# Where inputs of the same bytes say different things, the first of these that any of them says holds.
CONSENTS = ("withheld", "unknown", "granted", "not_needed")

INPUTS = pa.schema(
    [
        required("input_id", ID, "digest of the source key (uri, num_bytes, version)"),
        required("uri", pa.string(), "where the input was found"),
        required("num_bytes", pa.int64(), "size of the input as listed"),
        required("version", pa.string(), "etag or modification time, as listed"),
        required("source", pa.string(), "unit of licence and consent that the input belongs to"),
        required("outcome", pa.string(), "stored | partial (a part was lost) | refused"),
        field("recording_id", ID, "the recording its bytes became; null when refused"),
        field("licence", pa.string(), "SPDX id or text that came with the source"),
        field("consent", pa.string(), "of those who speak: granted | withheld | not_needed | unknown; null where nobody said"),
        field("terms", pa.string(), "terms of use, or where they stand, as the source says"),
        field("attribution", pa.string(), "whom to name, and how, as the source says"),
        field("origin_uri", pa.string(), "page or publisher that the source was taken from"),
        field(
            "synthesizer",
            pa.string(),
            "what made the speech, by the source or a mark in the file; null = not known to be synthetic",
        ),
        field("language", pa.string(), "ISO 639-1, as the source says"),
        field("speaker_label", pa.string(), "speaker, as the source says (one speaker in the whole input)"),
        field("text", pa.string(), "transcript that came with the source; never overwritten by a guessed one"),
        field("translation", pa.string(), "what is said, in another language, as the source says"),
        field("translation_language", pa.string(), "ISO 639-1 of the translation"),
        field("pair_id", pa.string(), "shared by two inputs of a source that say the same in two languages"),
        field("facts_from", pa.string(), "manifest, tar or dataset that told the facts, and which of its columns is which"),
        field("reference_rttm_uri", pa.string(), "reference turns of the input (RTTM)"),
        field("reference_stm_uri", pa.string(), "reference words of the input (STM)"),
    ]
)

RECORDINGS = pa.schema(
    [
        required("recording_id", ID, "digest of the file's bytes"),
        required("num_samples", pa.int64(), "samples a channel, as stored"),
        required("sample_rate_hz", pa.int32(), "rate of the stored audio"),
        required("num_channels", pa.int16(), "channels stored"),
        required("heard_channels", pa.list_(pa.int16()), "channels the models hear: those that say something of their own"),
        required("source_sample_rate_hz", pa.int32(), "rate of the acquired file, before any resampling"),
        required("codec", pa.string(), "codec of the acquired file"),
        required("container", pa.string(), "container of the acquired file"),
        required("stored_bits", pa.int16(), "bits a sample of the stored FLAC"),
        required("stored_scale", pa.float64(), "factor on the amplitudes before storing (1.0 unless they passed full scale)"),
        required("peak", pa.float32(), "largest magnitude of the acquired audio, 1.0 = full scale"),
        required("rms_dbfs", pa.float32(), "RMS level of the acquired audio over all channels; -120 for digital silence"),
        field(
            "bandwidth_hz",
            pa.float32(),
            "highest frequency of the acquired audio, before any resampling, within 60 dB of the strongest; null for digital silence",
        ),
        field("declared_num_samples", pa.int64(), "samples a channel that the header promised; null when it does not say"),
        required("is_truncated", pa.bool_(), "fewer samples decoded than the header promised, or the decoder gave up"),
        field("is_interleaved", pa.bool_(), "its channels are one signal dealt out in turn: the header promises too many"),
    ]
)

QUARANTINE = pa.schema(
    [
        required("input_id", ID, "the input"),
        required("uri", pa.string(), "where it was found"),
        required("stage", pa.string(), "open | probe | decode | check"),
        required("reason", pa.string(), "stable code, e.g. not_audio, non_finite_samples, truncated"),
        required("message", pa.string(), "one line for people"),
        required("outcome", pa.string(), "refused | partial (the decoded part entered the corpus)"),
        field("takedown_id", ID, "of reason taken_down: the takedown that keeps the input out"),
    ]
)

SPANS = pa.schema(
    [
        required("recording_id", ID, "recording"),
        required("channel", pa.int16(), "channel of the recording"),
        required("sample_rate_hz", pa.int32(), "rate that the samples count (that of the stored audio)"),
        required("start_sample", pa.int64(), "first sample, relative to the start of the recording"),
        required("end_sample", pa.int64(), "one past the last sample"),
        field("speaker_label", pa.string(), "speaker, local to the recording and channel; null where the segmenter tells none"),
        field("speech_prob", pa.float32(), "mean speech probability in the span; null where the segmenter gives none"),
    ]
)

FAILURES = pa.schema(
    [
        required("recording_id", ID, "recording in which the segmenter failed"),
        required("channel", pa.int16(), "channel of the recording"),
        required("reason", pa.string(), "crashed | timed_out | out_of_memory | error"),
        required("message", pa.string(), "one line for people"),
    ]
)

CLIP_SPANS = pa.list_(
    pa.struct(
        [
            required("start_sample", pa.int64(), "first sample, relative to the start of the clip"),
            required("end_sample", pa.int64(), "one past the last sample, relative to the start of the clip"),
        ]
    )
)

CLIPS = pa.schema(
    [
        required("clip_id", ID, "digest of (recording_id, channel, sample_rate_hz, start_sample, end_sample)"),
        required("recording_id", ID, "recording"),
        required("channel", pa.int16(), "channel of the recording"),
        required("sample_rate_hz", pa.int32(), "rate that the samples count (that of the stored audio)"),
        required("start_sample", pa.int64(), "first sample, relative to the start of the recording"),
        required("end_sample", pa.int64(), "one past the last sample"),
        field("speaker_label", pa.string(), "speaker, local to the recording; null when no diarization ran"),
        required("speech_samples", pa.int64(), "samples of the clip in which VAD hears speech"),
        required("overlap_samples", pa.int64(), "samples of the clip in which a second speaker talks too"),
        required("speech_spans", CLIP_SPANS, "where in the clip VAD hears speech, at sample_rate_hz; sorted and disjoint"),
        required("overlap_spans", CLIP_SPANS, "where in the clip at least two speakers talk, likewise"),
    ]
)

LAYER_KEYS = pa.schema(
    [
        required("clip_id", ID, "clip; rows stand in the order of the clip part"),
        required("status", pa.string(), "ok | error | abstained | gated"),
        field("error", pa.string(), "error code and message where status is error"),
    ]
)

CLIP_SPEAKERS = pa.schema(
    [
        required("clip_id", ID, "clip; rows stand in the order of the unit's clips"),
        field(
            "speaker_id", ID, "the person, perhaps by an alias (SPEAKER_ALIASES); null where no clip of the voice was embedded"
        ),
        field("similarity", pa.float32(), "mean cosine with all clips of the person, when linked; null where not embedded"),
    ]
)

SPEAKERS = pa.schema(
    [
        required("speaker_id", ID, "digest of the ids of the clips of the first voice that was found of the person"),
        required("num_clips", pa.int64(), "clips"),
        required("num_recordings", pa.int64(), "recordings that hold one of them"),
        required("clip_s", pa.float64(), "seconds of the clips"),
        required("speech_s", pa.float64(), "seconds of the clips in which VAD hears speech"),
        required("since_snapshot", pa.int64(), "snapshot over which the person was first found"),
        required("weight", pa.float64(), "seconds that the centroid stands on, at most 30 of each voice"),
        required("self_share", pa.float64(), "weighted share of a clip with itself among all pairs of the person's clips"),
        required("centroid", pa.list_(pa.float32()), "weighted mean of the unit vectors of the clips, not normalised"),
    ]
)

SPEAKER_ALIASES = pa.schema(
    [
        required("alias", ID, "id that was given once, and is in older packs and rows"),
        required("speaker_id", ID, "the person's id now, in SPEAKERS"),
        required("since_snapshot", pa.int64(), "snapshot over which the two proved to be one person"),
    ]
)

TAKEDOWNS = pa.schema(
    [
        required("takedown_id", ID, "digest of rule and value"),
        required("rule", pa.string(), "recording | clip | input | speaker | speaker_id | source | uri_pattern"),
        required("value", pa.string(), "the id (hex), source or pattern; of a speaker's name the digest (hex) alone"),
        required("reason", pa.string(), "why, as the request said"),
        required("decided_at", pa.timestamp("ms", "UTC"), "when"),
        required("snapshot", pa.int64(), "snapshot that it was decided over"),
    ]
)

TOMBSTONES = pa.schema(
    [
        required("takedown_id", ID, "the rule that matched, in TAKEDOWNS"),
        required("kind", pa.string(), "recording | clip | input | speaker, or by what they are known: uri | audio | text"),
        required(
            "id", ID, "of the recording, clip, input or speaker; or the digest of a URI, of bytes that held audio, of a text"
        ),
        field("recording_id", ID, "the recording that it is of; null of an input that was refused"),
        field("channel", pa.int16(), "of a clip: channel of the recording"),
        field("start_sample", pa.int64(), "of a clip: first sample, at the recording's stored rate"),
        field("end_sample", pa.int64(), "of a clip: one past the last sample"),
    ]
)

DUPLICATES = pa.schema(
    [
        required("clip_id", ID, "clip; rows stand in the order of the unit's clips"),
        field("group_id", ID, "smallest clip_id of the clips that are copies of one another; null for a clip without copies"),
        field("kept_clip_id", ID, "the copy that stays, of a clip that is left out"),
        field("drop_reason", pa.string(), "exact_copy | near_copy | same_text; null for a clip that stays"),
        field("overlap_s", pa.float32(), "seconds that the clip shares with the copy that shares most with it"),
        field("bit_error_rate", pa.float32(), "of the acoustic fingerprints over those seconds; 0 for equal samples"),
        field("text_group_id", ID, "smallest clip_id of the clips that say the same text; null where no other clip does"),
    ]
)

COPY_PAIRS = pa.schema(
    [
        required("clip_id", ID, "the earlier clip"),
        field("other_clip_id", ID, "the later clip"),
        required("kind", pa.string(), "exact | near | text"),
        required("is_whole", pa.bool_(), "one of the two can be left out for the other: what they share is nearly all of it"),
        field("start_sample", pa.int64(), "first sample that they share, relative to the start of the clip; null of text"),
        field("end_sample", pa.int64(), "one past the last"),
        field("other_start_sample", pa.int64(), "first sample that they share, relative to the start of the other clip"),
        field("other_end_sample", pa.int64(), "one past the last"),
        field("overlap_s", pa.float32(), "seconds that they share"),
        field("share", pa.float32(), "part of the clip's audible frames in what they share"),
        field("other_share", pa.float32(), "part of the other clip's"),
        field("bit_error_rate", pa.float32(), "of the acoustic fingerprints over what they share; 0 for equal samples"),
        field("text_similarity", pa.float32(), "Jaccard similarity of the character n-grams of the normalised texts"),
    ]
)

CONTAMINATION = pa.schema(
    [
        required("clip_id", ID, "clip; rows stand in the order of the unit's clips"),
        field("drop_reason", pa.string(), "contaminated_audio | contaminated_text; null for a clip that stays"),
        field("evaluation_set", pa.string(), "source of the registry's clip"),
        field("registry_clip_id", pa.string(), "hex, the clip of the registry that shares most with it"),
        field("start_sample", pa.int64(), "first sample that they share, relative to the start of the clip; null of text"),
        field("end_sample", pa.int64(), "one past the last"),
        field("registry_start_s", pa.float64(), "where that begins in the registry's clip"),
        field("overlap_s", pa.float32(), "seconds that they share"),
        field("bit_error_rate", pa.float32(), "of the acoustic fingerprints over what they share"),
        field("ngram_share", pa.float32(), "part of the n-grams of the registry's text that the clip's text has"),
    ]
)

# What a turn of a document is. A turn that is a merger of clips has their audio and codes one behind the other.
TURN = pa.struct(
    [
        field("role", pa.string(), "human | assistant, in a conversation; null elsewhere"),
        field("text", pa.string(), "transcript, translation or plain text"),
        field("text_source", pa.string(), "source (came with the input) or the name of the layer that guessed it"),
        field("language", pa.string(), "ISO 639-1"),
        field("speaker_label", pa.string(), "who speaks, local to the recording; null where nobody tells"),
        field("caption_en", pa.string(), "how it sounds, in English; null without a layer of captions"),
        field("caption_zh", pa.string(), "the same in Chinese"),
        field("num_samples", pa.int64(), "audio samples at the pack's rate; null without audio"),
        field("num_codes", pa.int32(), "audio codes; null without codes"),
        field("num_text_tokens", pa.int32(), "text tokens; null without text, or when the pack was made without a tokenizer"),
        field("recording_id", ID, "the recording that the clips are spans of; null of a turn of text alone"),
        field(
            "clips",
            pa.list_(
                pa.struct(
                    [
                        required("clip_id", ID, "clip"),
                        required("num_samples", pa.int64(), "its samples, counted at the pack's rate"),
                    ]
                )
            ),
            "the clips that the turn was made from, in order of time; none of a turn of text alone",
        ),
    ]
)

DOCUMENTS = pa.schema(
    [
        required("key", pa.string(), "key of the document's members in its shard"),
        required("shard", pa.string(), "file name of the shard"),
        required("offset", pa.int64(), "byte offset of the document's first member in the shard"),
        required("num_bytes", pa.int64(), "bytes of all its members, headers and padding included"),
        required("kind", pa.string(), "clip | continuation | conversation | pair | text"),
        field("relation", pa.string(), "of a turn to the one before: continuation | reply | translation; null with one turn"),
        required("tasks", pa.list_(pa.string()), "training tasks it can serve, e.g. asr, tts, s2tt, conversation, text"),
        required("turns", pa.list_(TURN), "its turns in order; member names count them from 0"),
        field("num_samples", pa.int64(), "audio samples of all turns at the pack's rate; null without audio"),
        field("num_codes", pa.int32(), "audio codes of all turns; null without codes"),
        field("num_text_tokens", pa.int32(), "text tokens of all turns; null when the pack was made without a tokenizer"),
        field("language", pa.string(), "ISO 639-1, where all turns have this one"),
        field("text_source", pa.string(), "where the texts of all turns come from, where that is one place"),
        field("speaker", pa.string(), "speaker, or group of speakers, that the split keeps in one place"),
        field("synthesizer", pa.string(), "what made the speech of any turn; null = not known to be synthetic"),
        field("source", pa.string(), "unit of licence and consent that the recordings belong to"),
        field(
            "licence",
            pa.string(),
            "SPDX id or text that came with the source, of several turns joined by AND; null where nobody states one",
        ),
    ]
)

LEDGER = pa.schema(
    [
        required("part", pa.string(), "output that was worked on, e.g. ingest, spans/vad, layers/<clip set>/asr"),
        required("unit", pa.string(), "unit"),
        required("audio_s", pa.float64(), "audio-seconds that the part worked through"),
        required("gated_audio_s", pa.float64(), "audio-seconds that a gate kept from the part"),
        required("carried_audio_s", pa.float64(), "audio-seconds whose rows were carried over from another clip set"),
        required("started_at_s", pa.float64(), "when the unit's work began, seconds since 1970 UTC"),
        required("wall_s", pa.float64(), "seconds from the start of the unit's work to its commit"),
        required("cpu_s", pa.float64(), "CPU seconds of the worker process in that time"),
        required("gpu_s", pa.float64(), "seconds that the worker held a GPU, times its share of it"),
        required("setup_s", pa.float64(), "seconds of wall_s that loading the model took: 0 but for a worker's first unit"),
        required("model_cpu_s", pa.float64(), "CPU seconds inside the model itself (segment, annotate)"),
        required("num_rows", pa.int64(), "what num_errors is a part of: inputs, channels of a segmenter, clips"),
        required("num_errors", pa.int64(), "rows with status error, channels that a segmenter failed on, or inputs refused"),
        field("first_error", pa.string(), "message of the first of them"),
        required("num_bytes", pa.int64(), "bytes written"),
        required("peak_rss_bytes", pa.int64(), "largest resident memory of the worker process so far"),
        required("worker", pa.string(), "host:pid of the worker process"),
    ]
)

STATUSES = ("ok", "error", "abstained", "gated")


def layer_schema(adds: pa.Schema) -> pa.Schema:
    """Schema of a layer part: the key columns, then what the annotator adds (all nullable)."""
    return pa.schema([*LAYER_KEYS, *adds])


def check_table(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The table with exactly the schema's columns, types and metadata.

    Raises ContractError naming the first column that is missing, extra, of another type, or null where it must not be.
    """
    missing = [f.name for f in schema if f.name not in table.column_names]
    extra = [name for name in table.column_names if name not in schema.names]
    if missing or extra:
        raise ContractError(f"{what}: columns missing {missing}, undeclared {extra}; return exactly {schema.names}")
    for declared in schema:
        column = table.column(declared.name)
        if column.type != declared.type:
            raise ContractError(f"{what}: column {declared.name!r} is {column.type}; it is declared {declared.type}")
        if not declared.nullable and column.null_count:
            raise ContractError(f"{what}: column {declared.name!r} has {column.null_count} nulls; it is declared required")
    return table.select(schema.names).cast(schema)


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A checked table from row dicts; a key that the schema lacks is an error, a missing one is null."""
    for row in rows:
        extra = row.keys() - set(schema.names)
        if extra:
            raise ContractError(f"row has undeclared columns {sorted(extra)}; the schema has {schema.names}")
    return check_table(pa.Table.from_pylist(rows, schema=schema), schema, "rows")
