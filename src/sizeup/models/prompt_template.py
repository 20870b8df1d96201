"""The family of a chat template, by the marks that only its family has.

The marks are facts of the published templates; the order matters where one family's marks contain another's.
"""

from __future__ import annotations

#: (family, marks that all occur in its template)
_MARKS = (
    ("phi4", ("<|im_start|>", "<|im_sep|>")),
    ("kimi_k2", ("<|im_middle|>", "<|im_assistant|>")),
    ("smolvlm", ("<|im_start|>", "<end_of_utterance>")),
    ("qwen3", ("<|im_start|>", "<tool_call>", "<think>")),
    ("qwen2_5", ("<|im_start|>", "<tool_call>")),
    ("chatml", ("<|im_start|>",)),
    ("gpt_oss", ("<|start|>", "<|channel|>")),
    ("llama4", ("<|header_start|>",)),
    ("llama3", ("<|start_header_id|>",)),
    ("deepseek", ("<｜User｜>",)),
    ("deepseek_coder", ("### Instruction:", "<|EOT|>")),
    ("mistral_v7", ("[INST]", "[SYSTEM_PROMPT]")),
    ("mistral", ("[INST]", "[AVAILABLE_TOOLS]")),
    ("llama2", ("[INST]",)),
    ("gemma4", ("<|turn>",)),
    ("gemma", ("<start_of_turn>",)),
    ("command_r", ("<|START_OF_TURN_TOKEN|>",)),
    ("granite", ("<|start_of_role|>",)),
    ("glm4", ("[gMASK]",)),
    ("exaone", ("[|assistant|]",)),
    ("hunyuan", ("<｜hy_Assistant｜>",)),
    ("hunyuan_moe", ("<|extra_0|>",)),
    ("seed_oss", ("<seed:bos>",)),
    ("minimax", ("]~b]",)),
    ("bailing", ("<role>",)),
    ("phi3", ("<|end|>", "<|user|>")),
    ("zephyr", ("<|user|>",)),
    ("openchat", ("GPT4 Correct",)),
    ("vicuna", ("USER:", "ASSISTANT:")),
    ("alpaca", ("### Instruction:",)),
)


def template_family(template: str) -> str:
    """The family of a template; `custom` when it has none of the known marks."""
    return next((family for family, marks in _MARKS if all(mark in template for mark in marks)), "custom")
