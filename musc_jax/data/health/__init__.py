"""Health of a batch: what pictures and scans say, before anything is scored, about whether samples belong together.

Everything is judged by small pictures that are made while files are checked, see `look`. `docs/health.md` has the
rules, and on what their thresholds were tried. Nothing here changes a score.
"""

from musc_jax.data.health.examination import examine, few_samples
from musc_jax.data.health.findings import Finding
from musc_jax.data.health.look import Look, look_at

__all__ = ["Finding", "Look", "examine", "few_samples", "look_at"]
