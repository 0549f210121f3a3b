"""Parameters that are not for everybody to take or to pass on: what is said, and where nothing is written."""

from pathlib import Path

from weights.backbones import BackboneSpec
from weights.errors import WeightsError


def notice(spec: BackboneSpec) -> str | None:
    """What has to be said before such parameters are fetched; None for the others."""
    if not spec.terms:
        return None
    return (
        f"{spec.name}: under the {spec.licence} ({spec.terms}); what is fetched stays in the local cache and is not "
        f"for passing on"
    )


def expect_local(spec: BackboneSpec, target: Path, way_out: str) -> None:
    """Keeps such parameters from being converted into a file that people carry along or hand out.

    Args:
        spec: Whose parameters they are.
        target: Where they would be written.
        way_out: What to do instead.

    Raises:
        WeightsError: They may not be written there.
    """
    if spec.terms:
        raise WeightsError(
            f"{target}: not written: parameters of {spec.name} may be passed on under the conditions of the "
            f"{spec.licence} alone ({spec.terms}), so they are converted into the local cache only; {way_out}"
        )


def by_hand(spec: BackboneSpec) -> str:
    """How to come by parameters that could not be fetched, and how to pass them."""
    flag = "--weights_points" if spec.family == "point_mae" else "--weights_rgb"
    folder = f"download config.json and model.safetensors (or pytorch_model.bin) from {spec.origins[0]} into a folder"
    if spec.ask_at:
        what = (
            f"access has to be asked for, licence: {spec.licence}: at {spec.ask_at}, then download {spec.given_file} "
            f"from the address that comes by e-mail and pass {flag}=FILE; or at {spec.origins[0]}, then set HF_TOKEN, "
            f"or {folder} and pass {flag}=FOLDER"
        )
    elif spec.hub_id:
        what = f"{folder} and pass {flag}=FOLDER"
    else:
        what = f"download that file and pass {flag}=FILE"
    return f"{what} to launch.eval or launch.score, or {flag}=random for a try that says nothing about accuracy"
