"""Build `tables/lora.csv.gz`: LoRA of SmolLM2-135M on the task `basic_arithmetic` of reasoning-gym.

    nice -n 10 python tests/bench/search/build_lora.py MODEL

MODEL is a folder with SmolLM2-135M. Adapters are on all linear layers of its last four blocks; the blocks below are
frozen, so what they say of each row is computed once. 128 rows once, 48 others held out; AdamW, linear warm-up over the
first tenth and decay, gradients clipped at 1, lora_alpha 16. The metric is the mean log-likelihood of the tokens of the
held-out answers (the end of the text included). The seed draws the order of the rows and the adapter.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import building
from building import Measured
from tables import LORA, POINTS

if TYPE_CHECKING:
    import torch

_TRAINING = 128
_VALIDATION = 48
_BLOCKS = 4
_ALPHA = 16
_WARMUP = 0.1


@dataclass(frozen=True)
class Rows:
    """`hidden` (n, tokens, width): what the frozen blocks say; `labels` (n, tokens): next token, -100 in questions."""

    hidden: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def take(self, chosen: Sequence[int]) -> Rows:
        tokens = int(self.mask[list(chosen)].sum(dim=1).max())
        return Rows(*(part[list(chosen), :tokens] for part in (self.hidden, self.mask, self.labels)))


class Bench:
    """The frozen part, computed once."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
        self._model.requires_grad_(False)
        every = self._rows(_TRAINING + _VALIDATION)
        self._model.model.layers = self._model.model.layers[-_BLOCKS:]
        self._model.config.num_hidden_layers = _BLOCKS
        self._training = every.take(range(_TRAINING))
        held_out = range(_TRAINING, _TRAINING + _VALIDATION)
        order = sorted(held_out, key=lambda index: int(every.mask[index].sum()))
        self._validation = [every.take(order[start : start + 24]) for start in range(0, _VALIDATION, 24)]

    def _rows(self, count: int) -> Rows:
        """Distinct questions, so that none is trained and held out."""
        import reasoning_gym
        import torch

        task = reasoning_gym.create_dataset("basic_arithmetic", size=2 * count, seed=1, max_terms=3, max_digits=2)
        texts = list({row["question"]: row["answer"] for row in task}.items())[:count]
        ids, labels = [], []
        for question, answer in texts:
            asked = self._tokenizer(question)["input_ids"]
            said = [*self._tokenizer(f" {answer}")["input_ids"], self._tokenizer.eos_token_id]
            ids.append(torch.tensor([*asked, *said]))
            labels.append(torch.tensor([*[-100] * (len(asked) - 1), *said, -100]))
        pad = torch.nn.utils.rnn.pad_sequence
        mask = pad([torch.ones_like(row) for row in ids], batch_first=True)
        with torch.no_grad():
            states = self._model.model(
                pad(ids, batch_first=True), attention_mask=mask, output_hidden_states=True, use_cache=False
            ).hidden_states
        return Rows(states[-_BLOCKS - 1], mask, pad(labels, batch_first=True, padding_value=-100))

    def measure(self, params: Mapping[str, Any], seed: int) -> Iterator[Measured]:
        """One fine-tuning; a loss that is not finite makes the metric missing from there."""
        import peft
        import torch

        torch.manual_seed(seed)
        config = peft.LoraConfig(r=params["rank"], lora_alpha=_ALPHA, target_modules="all-linear", lora_dropout=0.0)
        model = peft.get_peft_model(self._model, config)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=params["learning_rate"], weight_decay=0.0, fused=True)
        order, size = torch.randperm(_TRAINING).tolist(), params["batch_size"]
        batches = [order[start : start + size] for start in range(0, _TRAINING, size)]
        warmup = _WARMUP * len(batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (warmup + 1), (len(batches) - step) / (len(batches) - warmup))
        )
        marks = [math.ceil(len(batches) * point / POINTS) for point in range(1, POINTS + 1)]
        values, seconds, evaluations, spent = [], [], [], 0.0
        for step, chosen in enumerate(batches, start=1):
            began = time.process_time()
            logits, labels = self._answers(self._training.take(chosen))
            torch.nn.functional.cross_entropy(logits, labels).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            spent += time.process_time() - began
            if step in marks:
                began = time.process_time()
                value = self._likelihood()
                evaluations.append(time.process_time() - began)
                values += [value] * marks.count(step)
                seconds += [spent] * marks.count(step)
        model.unload()
        yield Measured(params, values, seconds, sum(evaluations) / len(evaluations))

    def _answers(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (answer tokens, vocabulary) and those tokens."""
        states = self._model.model(
            inputs_embeds=rows.hidden, attention_mask=rows.mask, use_cache=False
        ).last_hidden_state  # fmt: skip
        wanted = rows.labels != -100
        return self._model.lm_head(states[wanted]).float(), rows.labels[wanted]

    def _likelihood(self) -> float:
        import torch

        total, count = 0.0, 0
        with torch.no_grad():
            for rows in self._validation:
                logits, labels = self._answers(rows)
                total -= float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
                count += len(labels)
        return total / count


if __name__ == "__main__":
    building.one_thread()
    building.build(LORA, Bench(sys.argv[1]).measure)
