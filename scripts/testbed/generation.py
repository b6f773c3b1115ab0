"""Greedy answers of a Llama model in padded batches, with the SmolLM2 chat format."""
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def load(base, device, dtype=torch.float32):
    model = LlamaForCausalLM.from_pretrained(base, dtype=dtype).to(device).eval()
    return model, Tokenizer.from_file(str(base) + "/tokenizer.json")


def chat(prompt):
    return (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n"
            "<|im_start|>assistant\n")


def prompt_ids(tokenizer, prompt):
    return tokenizer.encode(chat(prompt), add_special_tokens=False).ids


class Answers:
    """Generates greedily; `kv` (see kv_formats.py) may quantize keys and values on the way."""

    def __init__(self, model, tokenizer, max_new_tokens=48, batch=128, kv=None):
        self.model, self.tokenizer = model, tokenizer
        self.max_new_tokens, self.batch, self.kv = max_new_tokens, batch, kv
        self.eos = tokenizer.token_to_id("<|im_end|>")

    def ids(self, prompts):
        encoded = [prompt_ids(self.tokenizer, p) for p in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        out = [None] * len(prompts)
        for start in range(0, len(order), self.batch):
            chosen = order[start:start + self.batch]
            for i, ids in zip(chosen, self._batch([encoded[i] for i in chosen])):
                out[i] = ids
        return out

    def texts(self, prompts):
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in self.ids(prompts)]

    @torch.no_grad()
    def _batch(self, rows):
        device = self.model.device
        width = max(len(r) for r in rows)
        tokens = torch.full((len(rows), width), self.eos, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, width - len(row):] = torch.tensor(row)
            mask[i, width - len(row):] = 1
        tokens, mask = tokens.to(device), mask.to(device)
        past, done, steps = None, torch.zeros(len(rows), dtype=torch.bool, device=device), []
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        step_input, step_mask = tokens, mask
        for _ in range(self.max_new_tokens):
            if self.kv:
                self.kv.valid = step_mask.bool()
            result = self.model(input_ids=step_input, attention_mask=mask, position_ids=positions,
                                past_key_values=past, use_cache=True, logits_to_keep=1)
            past = result.past_key_values
            following = result.logits[:, -1].argmax(-1)
            following = torch.where(done, torch.full_like(following, self.eos), following)
            steps.append(following)
            done |= following == self.eos
            if bool(done.all()):
                break
            step_input, positions = following[:, None], positions[:, -1:] + 1
            step_mask = torch.ones_like(step_input)
            mask = torch.cat([mask, step_mask], 1)
        answers = torch.stack(steps, 1).tolist()
        return [a[:a.index(self.eos)] if self.eos in a else a for a in answers]
