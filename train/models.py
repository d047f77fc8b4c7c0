"""Classifiers by name."""

from __future__ import annotations

from torch import nn


def make_classifier(name: str, classes: int, *, weights: str | None = None) -> nn.Module:
    """A torchvision classifier with `classes` outputs; `weights` names torchvision weights ("DEFAULT").

    With `weights`, everything but a classification layer of another size is loaded.
    """
    from semisparse._torchvision import torchvision

    models = torchvision.models
    if name not in models.list_models(module=models):
        close = [m for m in models.list_models(module=models) if m[:3] == name[:3]]
        raise ValueError(
            f"model {name!r} is unknown; expected a torchvision classifier such as "
            f"{', '.join((close or ['resnet18', 'resnet50', 'vgg16_bn', 'mobilenet_v2'])[:6])}"
        )
    model = models.get_model(name, num_classes=classes)
    if weights:
        state = models.get_model_weights(name)[weights].get_state_dict(progress=False, check_hash=True)
        own = model.state_dict()
        mismatched = [k for k in state if k in own and state[k].shape != own[k].shape]
        model.load_state_dict({k: v for k, v in state.items() if k not in mismatched}, strict=False)
    return model
