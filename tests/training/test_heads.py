"""Heads that don't write words: which one a configuration means, what it takes, and what can't be."""

import pytest
from training_cases import LLAMA, estimated

from sizeup.errors import BadInput
from sizeup.estimate.training.heads import default_head, default_labels
from sizeup.estimate.training.models import subject_of
from sizeup.operations.train import TrainRequest, train

BERT = {
    "model_type": "bert", "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4,
    "num_attention_heads": 8, "max_position_embeddings": 512,
}  # fmt: skip


def setting(**changes):
    return {"batch": 4, "sequence": 128} | changes


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("BertForMaskedLM", "lm"), ("BertModel", "lm"), ("LlamaForCausalLM", "lm"),
        ("BertForSequenceClassification", "classification"), ("Qwen3ForTokenClassification", "tokens"),
        ("RobertaForQuestionAnswering", "question"), ("ViTForImageClassification", "classification"),
    ],
)  # fmt: skip
def test_the_first_architecture_names_the_head(architecture, head):
    assert default_head({"architectures": [architecture, "LlamaForSequenceClassification"]}) == head


@pytest.mark.parametrize("names", [None, [], "BertForTokenClassification", [3], {"a": 1}])
def test_no_architecture_means_words(names):
    assert default_head({"architectures": names}) == "lm"


def test_labels_are_counted_or_named():
    assert default_labels({"num_labels": 5, "id2label": {"0": "a"}}) == 5
    assert default_labels({"id2label": {"0": "a", "1": "b", "2": "c"}}) == 3
    assert default_labels({}) == default_labels({"num_labels": 0}) == default_labels({"num_labels": True}) == 2


def test_a_configuration_trains_its_own_head():
    """As if the head had been asked for; and a setting overrules it."""
    own = BERT | {"architectures": ["BertForSequenceClassification"], "num_labels": 7}
    asked = estimated(BERT, setting(head="classification", labels=7))
    assert estimated(own, setting()).peak_bytes == asked.peak_bytes
    assert estimated(own, setting(head="lm")).peak_bytes == estimated(BERT, setting()).peak_bytes
    assert subject_of(own).shape.labels == 7


@pytest.mark.parametrize("config", [BERT, LLAMA])
def test_no_words_no_logits(config):
    """A classifier's logits and the weights of its head are small; one label a token is more than one a sequence."""
    words, classes, tokens = (
        estimated(config, setting(head=head, labels=3)) for head in ("lm", "classification", "tokens")
    )
    assert classes.component("logits_and_loss") < words.component("logits_and_loss")
    assert classes.component("weights") < words.component("weights")
    assert classes.peak_bytes < words.peak_bytes
    many = estimated(config, setting(head="tokens", labels=4096))
    assert many.peak_bytes > tokens.peak_bytes


def test_pairs_are_two_sequences():
    """An embedding's step of n pairs holds the activations of 2 n sequences."""
    pairs = estimated(BERT, setting(head="embedding", batch=4))
    alone = estimated(BERT, setting(head="classification", batch=8))
    assert abs(pairs.component("activations") / alone.component("activations") - 1) < 0.05


def test_adapters_leave_the_head_whole():
    """With LoRA the labels' matrix lies there twice: frozen, and as the copy that trains."""
    few, many = (
        estimated(BERT, setting(head="tokens", labels=n, method="lora", precision="fp32")) for n in (128, 1152)
    )
    grown = many.component("weights") - few.component("weights")
    assert grown == 2 * 1024 * (512 + 1) * 4


def test_unknown_heads_and_counts_are_named():
    with pytest.raises(BadInput, match="head 'regression' isn't known"):
        estimated(BERT, setting(head="regression"))
    with pytest.raises(BadInput, match="labels is -1"):
        estimated(BERT, setting(labels=-1))
    with pytest.raises(BadInput, match="head 'tokens' isn't estimated for this architecture"):
        estimated({"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 2, "num_heads": 8,
                   "vocab_size": 4096}, setting(head="tokens"))  # fmt: skip


def test_the_operation_takes_a_head():
    """Python and JSON say the same."""
    request = TrainRequest(model=BERT, head="classification", labels=3, batch=4, sequence=128)
    assert train(request).footprint.peak_bytes == estimated(BERT, setting(head="classification", labels=3)).peak_bytes
