"""The oracle's own cache: a sequence in a padded batch is stored as the sequence alone is.

Random keys in batches of unequal lengths go through KvTensor; each sequence alone goes through the
quantizer oracle of tests/parity/quantizers. Values are equal bit for bit, after the prompts and as
tokens follow; padding holds large values, which would be noticed in any statistic.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import needs  # noqa: E402,F401
import torch  # noqa: E402
from kv_plan import MUTATIONS, PLANS, parse_plan, quantizers  # noqa: E402
from kv_tensor import KvTensor  # noqa: E402

HEADS, DIM, STEPS = 3, 64, 40
MORE = ("*:int4.asym.tensor.prompt", "*:int4.sym.channel", "*:int3.affine.tensor.perhead",
        "*:int4.affine.token.window8", "*:int4.sym.tensor.window16x8", "*:int4.affine.group48")


def differences(form, lengths, mutation=""):
    """Elements stored differently, over all moments."""
    generator = torch.Generator().manual_seed(11)
    width = max(lengths)
    pads = [width - n for n in lengths]
    x = torch.randn(len(lengths), width + STEPS, HEADS, DIM, generator=generator)
    x[..., 5] *= 20
    for row, pad in enumerate(pads):
        x[row, :pad] = 1000.0
    batch = KvTensor(form, pads, mutation)
    batch.prompt(x[:, :width])
    count = 0
    for step in range(STEPS):
        for row, pad in enumerate(pads if step % 13 == 0 else ()):
            alone = x[row, pad:width + step]
            calls = [width - pad] + [1] * step
            stored = quantizers.Oracle(form.text, HEADS, DIM).run(alone, calls).values
            count += int((batch.values[row, pad:] != stored).sum())
        batch.append(x[:, width + step:width + step + 1])
    return count


def main():
    ok = True
    for plan in PLANS + MORE:
        layer = parse_plan(plan, 30)[19]
        for form in {f.text: f for f in (layer.key, layer.value) if f}.values():
            lengths = (100, 128, 130, 171) if form.quantizer.window > 16 else (1, 7, 30)
            count = differences(form, lengths)
            ok &= count == 0
            print(f"{'ok  ' if count == 0 else 'FAIL'} {form.text}: {count} values differ")
    for mutation in set(MUTATIONS) - {"v_unquantized", "post_instead_of_pre"}:
        form = parse_plan("*:int3.asym.tensor", 1)[0].key
        count = differences(form, (7, 30), mutation)
        ok &= count > 0
        print(f"{'ok  ' if count else 'FAIL'} teeth {mutation}: {count} values differ")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
