"""Column masks on training models: one static binary mask per convolution, over its output pixels.

A convolution is the matrix product ``Y[OC x N] = W[OC x K] . X[K x N]`` whose columns are output pixels. A
column mask of shape (OH, OW), shared by all channels and the whole batch, removes columns of that product
("semi-structured activation sparsity", Grimaldi et al., ICCVW 2023). While training, the removal is
emulated: the mask multiplies the convolution's output, bias included, *before* BatchNorm. Deployment skips
the columns for real (`semisparse.convert`).

The mask is a persistent boolean buffer, ``column_mask``, of the convolution itself, and the multiplication
is one forward hook that is a plain module-level function. So a masked model can be deep-copied, pickled,
averaged (EMA), wrapped in DistributedDataParallel and checkpointed like any other, and a copy is as masked
as the original.

**Other image sizes.** A mask belongs to one output size. What happens at another one is the model's policy
(`set_other_sizes`), and never silent: `refuse` (the default) raises; `resample` applies the mask stretched to
the new size by nearest neighbour (`resample_mask`); `dense` computes every column. `fit_masks` does the same
once and for all, which conversion for another size needs.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = [
    "attach_column_mask",
    "column_mask",
    "column_masks_disabled",
    "detach_column_mask",
    "fit_masks",
    "masked_modules",
    "resample_mask",
    "set_column_mask",
    "set_other_sizes",
]

BUFFER = "column_mask"
OTHER_SIZES = ("refuse", "resample", "dense")
_POLICY = "column_mask_other_sizes"  # attribute of masked modules, copied and pickled with them


def attach_column_mask(module: nn.Conv2d, mask: Tensor) -> None:
    """Give `module` a column mask, or replace the one it has (the new one may have another size).

    Args:
        module: the convolution whose output pixels are masked.
        mask: bool (OH, OW), True = computed, False = removed. It is copied to the weight's device.

    Raises:
        ValueError: `module` is not a Conv2d, or `mask` is not a two-dimensional, non-empty boolean tensor.
    """
    if not isinstance(module, nn.Conv2d):
        raise ValueError(
            f"a column mask belongs to an nn.Conv2d, but this is a {type(module).__name__}; "
            "mask the convolution inside it instead"
        )
    _check_mask(mask)
    module.register_buffer(BUFFER, mask.detach().to(module.weight.device, copy=True).contiguous())
    if _hook_key(module) is None:
        module.register_forward_hook(_multiply_by_mask)


def set_column_mask(module: nn.Conv2d, mask: Tensor) -> None:
    """Overwrite the mask of `module` in place, so that references to the buffer stay valid.

    Args:
        module: a convolution that has a mask already.
        mask: bool (OH, OW), of the same size as the present one.

    Raises:
        ValueError: there is no mask to overwrite, or dtype or size differ.
    """
    present = column_mask(module)
    if present is None:
        raise ValueError("this module has no column mask to set; call attach_column_mask(module, mask) first")
    _check_mask(mask)
    if mask.shape != present.shape:
        raise ValueError(
            f"the new mask has size {tuple(mask.shape)}, but the module's mask has {tuple(present.shape)}; "
            "call attach_column_mask to change the size"
        )
    with torch.no_grad():
        present.copy_(mask)


def column_mask(module: nn.Module) -> Tensor | None:
    """The mask of `module`, bool (OH, OW), True = computed; None if it has none."""
    return module._buffers.get(BUFFER)


def detach_column_mask(module: nn.Module) -> None:
    """Remove mask and hook from `module`; nothing happens if it has none."""
    key = _hook_key(module)
    if key is not None:
        del module._forward_hooks[key]
    if BUFFER in module._buffers:
        delattr(module, BUFFER)


def resample_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """`mask`, bool (OH, OW), stretched to `size` by nearest neighbour (pixel centres aligned).

    The fraction removed stays roughly the same. Runs and tiles of a granularity do not stay aligned unless
    the sizes are multiples of each other. A mask that would lose its last column keeps the middle one.
    """
    if tuple(mask.shape) == tuple(size):
        return mask
    rows, columns = (
        torch.div((2 * torch.arange(new) + 1) * old, 2 * new, rounding_mode="floor").to(mask.device)
        for old, new in zip(mask.shape, size, strict=True)
    )
    result = mask[rows[:, None], columns]
    if not result.any():
        result[size[0] // 2, size[1] // 2] = True
    return result


def set_other_sizes(model: nn.Module, policy: str) -> None:
    """What the masked modules of `model` do with outputs of another size than their mask's.

    Args:
        policy: `refuse`, `resample` or `dense`; see the module's docstring.

    Raises:
        ValueError: another word.
    """
    _check_policy(policy)
    for module in masked_modules(model).values():
        setattr(module, _POLICY, policy)


def fit_masks(model: nn.Module, example_input: Tensor, policy: str = "resample") -> None:
    """Replace the masks of `model` by ones of the sizes that `example_input` leads to.

    Args:
        model: changed in place; copy it first to keep the masks of the trained size.
        example_input: (N, C, H, W) of the new size. One forward pass in eval mode finds the output sizes.
        policy: `resample`, or `dense`, which detaches the masks that do not fit.

    Raises:
        ValueError: another policy, or the model does not run on the example.
    """
    _check_policy(policy)
    modules = masked_modules(model)
    sizes: dict[str, tuple[int, int]] = {}
    handles = [
        module.register_forward_hook(
            lambda m, i, out, name=name: sizes.__setitem__(name, tuple(out.shape[-2:]))
        )
        for name, module in modules.items()
    ]
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad(), column_masks_disabled(model):
            model(example_input)
    except RuntimeError as error:
        raise ValueError(
            f"the model does not run on an example input of shape {tuple(example_input.shape)}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    for name, size in sizes.items():
        mask = column_mask(modules[name])
        if tuple(mask.shape) == size:
            continue
        if policy == "refuse":
            raise ValueError(_wrong_size(mask, size))
        if policy == "dense":
            detach_column_mask(modules[name])
        else:
            attach_column_mask(modules[name], resample_mask(mask, size))


def masked_modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules of `model` that carry a column mask, by qualified name, in `named_modules` order."""
    return {name: module for name, module in model.named_modules() if column_mask(module) is not None}


@contextlib.contextmanager
def column_masks_disabled(model: nn.Module) -> Iterator[None]:
    """Run `model` densely inside the `with` block: the masks stay, but are not applied.

    Nesting is fine. Do not copy or save the model inside the block: the copy would stay dense.
    """
    saved: list[tuple[nn.Module, OrderedDict]] = []
    for module in masked_modules(model).values():
        key = _hook_key(module)
        if key is not None:
            saved.append((module, OrderedDict(module._forward_hooks)))
            del module._forward_hooks[key]
    try:
        yield
    finally:
        for module, before in saved:
            # Put the hook back where it was: hooks run in order, and one after it must see the masked output.
            now = OrderedDict(module._forward_hooks)
            module._forward_hooks.clear()
            for key, hook in before.items():
                if key in now or (hook is _multiply_by_mask and column_mask(module) is not None):
                    module._forward_hooks[key] = hook
            module._forward_hooks.update(now)


def _check_mask(mask: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 2 or mask.numel() == 0:
        what = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"a column mask is a non-empty bool tensor (OH, OW), True = computed, but this is {what}; "
            "convert scores with `scores > threshold`"
        )


def _hook_key(module: nn.Module) -> int | None:
    # Found by identity, not through the handle that register_forward_hook returns: copies and unpickled
    # modules have the hook but no handle.
    return next((key for key, hook in module._forward_hooks.items() if hook is _multiply_by_mask), None)


def _check_policy(policy: str) -> None:
    if policy not in OTHER_SIZES:
        raise ValueError(
            f"the policy for other sizes is {policy!r}, expected one of {', '.join(OTHER_SIZES)}"
        )


def _wrong_size(mask: Tensor, size: tuple[int, int]) -> str:
    return (
        f"the column mask has size {tuple(mask.shape)}, but this convolution's output is {tuple(size)}: "
        "masks belong to one input size. Feed the size that the masks were made for, attach masks of the new "
        "size (fit_masks), or choose what to do (set_other_sizes)"
    )


def _multiply_by_mask(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    mask = module._buffers[BUFFER]
    # Without this check a 1 x 1 mask, or one with a row too few, could broadcast into a silent wrong result.
    if output.shape[-2:] != mask.shape:
        policy = getattr(module, _POLICY, "refuse")
        if policy == "dense":
            return output
        if policy != "resample":
            raise ValueError(_wrong_size(mask, output.shape[-2:]))
        mask = resample_mask(mask, tuple(output.shape[-2:]))
    return output * mask.to(output.dtype)
