"""Folders as pyannote.audio reads them, made for tests: the bundled segmentation network, and a random embedding beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from annotators.pyannote_import import quiet_pyannote
from annotators.weights import packaged_path

DIMENSION, LDA_DIMENSION = 32, 16
CARD = "---\nlicense: cc-by-4.0\n---\nA pipeline for tests.\n"


def segmentation_folder(folder: Path) -> Path:
    """The segmentation network of the whisperx wheel, as a hub repository holds one."""
    folder.mkdir(parents=True)
    shutil.copy(packaged_path("whisperx", "assets", "pytorch_model.bin"), folder)
    return folder


def pipeline_folder(folder: Path, **params: Any) -> Path:
    """A ``SpeakerDiarization`` with a random embedding network and PLDA; ``params`` replace some of its parameters."""
    segmentation_folder(folder / "segmentation")
    _embedding_folder(folder / "embedding")
    _plda_folder(folder / "plda")
    config = {
        "dependencies": {"pyannote.audio": "4.0.0"},
        "pipeline": {
            "name": "pyannote.audio.pipelines.SpeakerDiarization",
            "params": {
                "clustering": "VBxClustering",
                "segmentation": "$model/segmentation",
                "segmentation_batch_size": 16,
                "segmentation_step": 0.2,
                "embedding": "$model/embedding",
                "embedding_batch_size": 16,
                "embedding_exclude_overlap": True,
                "plda": "$model/plda",
                **params,
            },
        },
        "params": {
            "segmentation": {"threshold": 0.5, "min_duration_off": 0.1},
            "clustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "README.md").write_text(CARD)
    return folder


def _embedding_folder(folder: Path) -> None:
    """An untrained embedding network: it loads and runs as a real one, and tells no voices apart."""
    folder.mkdir(parents=True)
    with quiet_pyannote():
        import torch
        from pyannote.audio.core.task import Problem, Resolution, Specifications
        from pyannote.audio.models.embedding import XVectorSincNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: Any = XVectorSincNet(dimension=DIMENSION)
        network.specifications = Specifications(
            problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0, classes=["voice"]
        )
        checkpoint: dict[str, Any] = {
            "state_dict": network.state_dict(),
            "hyper_parameters": {"dimension": DIMENSION},
            "pytorch-lightning_version": "2.0.0",
        }
        network.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, folder / "pytorch_model.bin")


def _plda_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    np.savez(
        folder / "xvec_transform.npz",
        mean1=np.zeros(DIMENSION),
        mean2=np.zeros(LDA_DIMENSION),
        lda=random.normal(size=(DIMENSION, LDA_DIMENSION)),
    )
    np.savez(
        folder / "plda.npz",
        mu=np.zeros(LDA_DIMENSION),
        tr=np.linalg.qr(random.normal(size=(LDA_DIMENSION, LDA_DIMENSION)))[0],
        psi=np.linspace(3.0, 0.1, LDA_DIMENSION),
    )
