"""What a run shows of itself while it trains: the parts grid of the file as it is now, and the separation score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lib_pivotal.bundle.reader import Bundle
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.parts_grid import draw_grid, embedding_requests, parts_pictures
from lib_pivotal.evaluation.separation import embeddings_alone, separation
from lib_pivotal.evaluation.validation import picture_losses
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import EmbeddingVectors, Host, SampleRequest, TrainingBatch
from lib_pivotal.training.outputs import PartsGrid
from lib_pivotal.training.step import MicroStep


class RunEvaluation:
    """`training.outputs.Evaluation`: whoever starts a run hands it in."""

    def parts_grid(
        self, host: Host, bundle: Bundle, names: Sequence[str], *, prompts: Sequence[str], size_px: int, title: str
    ) -> PartsGrid:
        """Samples through the saved file: what one sees is what one gets."""
        requests = embedding_requests(names, prompts, SampleRequest("", width_px=size_px, height_px=size_px))
        embeddings, network = load_on_host(host, bundle)
        rows = parts_pictures(host, requests, embeddings=embeddings, network=network)
        columns = tuple(request.prompt for request in requests)
        return PartsGrid(columns, rows, draw_grid(rows, columns, title=title))

    def separation(
        self,
        micro_step: MicroStep,
        held_out: Mapping[str, Sequence[TrainingBatch]],
        *,
        embeddings: EmbeddingVectors,
        initial_embeddings: EmbeddingVectors,
        network: Network | None,
        base: Mapping[str, float],
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """By embedding: held-out losses with parts off, and the share of the embedding."""
        scores = separation(
            micro_step,
            held_out,
            embeddings=embeddings,
            initial_embeddings=initial_embeddings,
            network=network,
            base=base,
        )
        losses = {
            name: {"whole": s.whole, "unet": s.unet, "te": s.te, "words": s.embeddings, "base": s.base}
            for name, s in scores.items()
        }
        return losses, {name: s.share_of_embeddings for name, s in scores.items()}

    def embeddings_alone(
        self,
        micro_step: MicroStep,
        held_out: Mapping[str, Sequence[TrainingBatch]],
        *,
        embeddings: EmbeddingVectors,
        network: Network | None,
    ) -> dict[str, float]:
        """By embedding: the held-out loss with these vectors and without the network."""
        return embeddings_alone(micro_step, held_out, embeddings=embeddings, network=network)

    def picture_losses(
        self,
        micro_step: MicroStep,
        pictures: Sequence[TrainingBatch],
        *,
        embeddings: EmbeddingVectors,
        noise_levels: int,
        timesteps: tuple[int, int],
        at_once: int,
    ) -> list[float]:
        """The validation loss of each picture, with all that is trained switched on."""
        return picture_losses(
            micro_step, pictures, embeddings, noise_levels=noise_levels, timesteps=timesteps, at_once=at_once
        )
