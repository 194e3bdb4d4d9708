"""pyannote.audio's networks and pipelines from folders: what they may hold is checked before anything of them is loaded.

Its checkpoints are pickles that hold plain objects beside their tensors, so they cannot be read as weights only. A pickle is
loaded only where every name that it asks Python for is one of those that pyannote's own training writes.
"""

from __future__ import annotations

import os
from typing import Any

import yaml

from annotators.checkpoints import Checkpoint, loading
from annotators.pyannote_import import quiet_pyannote
from annotators.weight_files import PICKLES
from manifests.errors import ModelUnavailable

PIPELINE_FILE, NETWORK_FILE = "config.yaml", "pytorch_model.bin"
PIPELINES = ("pyannote.audio.pipelines.SpeakerDiarization", "pyannote.audio.pipelines.speaker_diarization.SpeakerDiarization")
NETWORKS = ("segmentation", "embedding", "plda")
PLAIN_NAMES = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": "bool complex dict float frozenset int list set slice str tuple",
        "collections": "OrderedDict defaultdict",
        "typing": "Any",
        "torch.torch_version": "TorchVersion",
        "pyannote.audio.core.model": "Introspection",
        "pyannote.audio.core.task": "Problem Resolution Specifications",
        "omegaconf.base": "ContainerMetadata Metadata",
        "omegaconf.dictconfig": "DictConfig",
        "omegaconf.listconfig": "ListConfig",
        "omegaconf.nodes": "AnyNode BooleanNode FloatNode IntegerNode StringNode",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.multiarray": "_reconstruct scalar",
        "lightning.pytorch.callbacks.model_checkpoint": "ModelCheckpoint",
        "lightning.pytorch.callbacks.early_stopping": "EarlyStopping",
        "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
        "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
    }.items()
    for name in names.split()
)


def load_network(checkpoint: Checkpoint) -> Any:
    """A pyannote network on the CPU, ready to answer. Raises ModelUnavailable where the folder holds none that may be loaded."""
    path = os.path.join(checkpoint.path, NETWORK_FILE)
    if not os.path.exists(path):
        raise ModelUnavailable(f"model {checkpoint.name!r} has no {NETWORK_FILE}; give the folder of a pyannote.audio network")
    check_pickles(checkpoint)
    with quiet_pyannote(), loading(checkpoint, "a pyannote.audio network"):
        import torch
        from pyannote.audio import Model

        network: Any = Model.from_pretrained(path, map_location=torch.device("cpu"), strict=False)
        return network.eval()


def load_diarization(checkpoint: Checkpoint) -> Any:
    """A pyannote ``SpeakerDiarization`` on the CPU with its own settings. Raises ModelUnavailable as ``check_diarization``."""
    check_diarization(checkpoint)
    check_pickles(checkpoint)
    with quiet_pyannote(), loading(checkpoint, "a pyannote.audio pipeline"):
        from pyannote.audio import Pipeline

        pipeline: Any = Pipeline.from_pretrained(checkpoint.path)
        if not pipeline.instantiated:
            pipeline.instantiate(pipeline.default_parameters())
        return pipeline


def check_diarization(checkpoint: Checkpoint) -> None:
    """Raises ModelUnavailable unless the folder is a speaker diarization whose networks all lie in the folder itself."""
    where = f"model {checkpoint.name!r}"
    path = os.path.join(checkpoint.path, PIPELINE_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
        pipeline = config["pipeline"]
        name, params = pipeline["name"], pipeline.get("params", {})
    except OSError as error:
        raise ModelUnavailable(f"{where} has no {PIPELINE_FILE}; give the folder of a pyannote.audio pipeline") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"{where}: {PIPELINE_FILE} describes no pyannote.audio pipeline; fetch it again") from error
    if name not in PIPELINES:
        raise ModelUnavailable(f"{where} is a {name!r}; only {PIPELINES[0]} is run")
    if "preprocessors" in config:
        raise ModelUnavailable(f"{where} names preprocessors, which may be any code; take them out of its {PIPELINE_FILE}")
    for part in NETWORKS:
        steps = str(params.get(part, "")).split("/")
        if steps[0] != "$model" or len(steps) < 2 or ".." in steps:
            raise ModelUnavailable(
                f"{where}: its {part} is {params.get(part, 'not given')!r}; name a folder beside {PIPELINE_FILE} "
                f"(`{part}: $model/{part}`), so that its digest covers it and it loads without the network"
            )


def check_pickles(checkpoint: Checkpoint) -> None:
    """Raises ModelUnavailable where a pickle of the folder asks for a name that is no plain value's."""
    import torch

    for folder, _, names in os.walk(checkpoint.path):
        for name in sorted(names):
            if not name.endswith(PICKLES):
                continue
            with loading(checkpoint, "a pyannote.audio network"):
                asked = torch.serialization.get_unsafe_globals_in_checkpoint(os.path.join(folder, name))
            if foreign := sorted(set(asked) - PLAIN_NAMES):
                raise ModelUnavailable(
                    f"model {checkpoint.name!r}: {name} would run {foreign[0]!r} when it loads; "
                    "only what pyannote.audio itself writes is loaded, give another checkpoint"
                )
