"""What a model is trained for: the class with its head, the inputs of a step, and a loss where the class has none."""

from __future__ import annotations

from typing import Any

from sizeup.estimate.training.heads import default_head, default_labels

_TOWERS = ("vision_config", "audio_config")
#: Head → the classes that have it, by transformers' names; the first that knows the configuration is taken.
_CLASSES = {
    "classification": ("AutoModelForSequenceClassification", "AutoModelForImageClassification"),
    "tokens": ("AutoModelForTokenClassification",),
    "question": ("AutoModelForQuestionAnswering",),
    "embedding": ("AutoModel",),
}
#: How far apart a right and a wrong partner are: sentence-transformers' factor of similarities.
FACTOR = 20.0


def head_of(given: dict[str, Any], setting: dict[str, Any]) -> str:
    """The head that the setting or the configuration names."""
    return setting.get("head") or default_head(given)


def with_labels(config: Any, given: dict[str, Any], setting: dict[str, Any]) -> Any:
    """The configuration with as many labels as the setting asks for, and the tokens that a step wants to know of."""
    if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = getattr(config, "pad_token_id", None) or 0
    if head_of(given, setting) in {"classification", "tokens"}:
        config.num_labels = setting.get("labels") or default_labels(given)
        if config.num_labels > 1:
            config.problem_type = "single_label_classification"
        text = config.get_text_config()
        if getattr(text, "pad_token_id", None) is None:
            text.pad_token_id = 0
    return config


def auto_class(transformers: Any, config: Any, head: str) -> Any:
    """What builds the model with the head that it is trained with."""
    for name in _CLASSES.get(head, ()):
        found = getattr(transformers, name)
        if type(config) in found._model_mapping:  # noqa: SLF001 - the mapping has no public name
            return found
    pairs = _in_pairs(config)
    if pairs or type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return transformers.AutoModel if pairs else transformers.AutoModelForImageClassification
    if any(getattr(config, name, None) is not None for name in _TOWERS):
        return transformers.AutoModelForMultimodalLM
    if type(config) in transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING:
        return transformers.AutoModelForSpeechSeq2Seq
    if getattr(config, "is_encoder_decoder", False):
        return transformers.AutoModelForSeq2SeqLM
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if masked and not getattr(config, "is_decoder", False):
        return transformers.AutoModelForMaskedLM
    return transformers.AutoModelForCausalLM


def inputs_of(
    torch: Any, config: Any, setting: dict[str, Any], head: str, dtype: Any, device: str, *, real: bool
) -> dict[str, Any]:
    """What a step is given: tokens, sound or images; labels; a mask when padded; the items when accumulating."""
    batch, sequence = setting["batch"], setting["sequence"]
    if head == "embedding" or setting.get("objective") == "dpo":
        batch *= 2

    def ids(*shape: int) -> Any:
        if real:
            return torch.randint(0, 2 if head != "lm" else 100, shape, device=device)
        return torch.zeros(*shape, dtype=torch.long, device=device)

    made = _observed(torch, config, batch, dtype, device)
    written = bool(getattr(config, "is_encoder_decoder", False))
    target = setting.get("target_sequence") or sequence
    if "input_features" not in made and ("pixel_values" not in made or _in_pairs(config)):
        made["input_ids"] = ids(batch, sequence)
        if setting["padding"]:
            made["attention_mask"] = torch.ones(batch, sequence, dtype=torch.long, device=device)
    if _in_pairs(config):
        return made | {"return_loss": True}
    if head == "question":
        return made | {"start_positions": ids(batch), "end_positions": ids(batch)}
    if head == "embedding":
        return made
    alone = head == "classification" or ("pixel_values" in made and "input_ids" not in made)
    if alone and getattr(config, "num_labels", 2) == 1:
        made["labels"] = torch.zeros(batch, dtype=dtype, device=device)
    else:
        made["labels"] = ids(batch) if alone else ids(batch, target if written else sequence)
    if setting["accumulating"]:
        made["num_items_in_batch"] = torch.ones((), dtype=torch.long, device=device)
    return made


def _observed(torch: Any, config: Any, batch: int, dtype: Any, device: str) -> dict[str, Any]:
    """Mel features or images, as a processor makes them and a trainer casts them."""
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        shape = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        return {"input_features": torch.zeros(shape, dtype=dtype, device=device)}
    vision = getattr(config, "vision_config", config)
    if hasattr(vision, "image_size") and hasattr(vision, "patch_size") and (vision is config or _in_pairs(config)):
        size = vision.image_size
        height, width = (size, size) if isinstance(size, int) else size
        channels = getattr(vision, "num_channels", 3)
        return {"pixel_values": torch.zeros(batch, channels, height, width, device=device)}
    return {}


def _in_pairs(config: Any) -> bool:
    """Whether images and texts are matched (CLIP, SigLIP)."""
    return config.model_type in {"clip", "siglip", "siglip2", "metaclip_2", "chinese_clip", "align"}


def with_pooling(torch: Any, model: Any) -> Any:
    """The bare model with mean pooling and in-batch negatives (sentence-transformers' MultipleNegativesRankingLoss).

    Anchors and their partners go through it as one batch.
    """

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = model

        def forward(self, **inputs: Any) -> Any:
            output = self.module(**inputs)
            mask = inputs.get("attention_mask")
            output.loss = _contrast(torch, _pooled(output[0], mask))
            return output

    return Pooled()


def _pooled(tokens: Any, mask: Any) -> Any:
    if mask is None:
        return tokens.mean(1)
    wide = mask.unsqueeze(-1).expand(tokens.size()).to(tokens.dtype)
    return (tokens * wide).sum(1) / wide.sum(1).clamp(min=1e-9)


def _contrast(torch: Any, vectors: Any) -> Any:
    functional = torch.nn.functional
    anchors, partners = functional.normalize(vectors, dim=-1).chunk(2)
    scores = anchors @ partners.mT * FACTOR
    return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))
