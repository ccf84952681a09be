"""The published rows to stand beside: Chern et al. (2025, arXiv 2505.22525), as the paper prints them.

No intervals, seeds or number of pictures are published. The rows of the baseline are Anole-7b after the paper's first
stage of training.
"""

from collections.abc import Mapping

_GENEVAL = ("single_object", "two_object", "counting", "colors", "position", "color_attr", "overall")
_DPG = ("global", "entity", "attribute", "relation", "other", "overall")
Columns = Mapping[str, float]


def _row(columns: tuple[str, ...], *values: float | None) -> Columns:
    return {column: value for column, value in zip(columns, values, strict=True) if value is not None}


PAPER: Mapping[str, Mapping[str, Columns]] = {
    "geneval": {
        "Anole-7b, stage 1": _row(_GENEVAL, None, 0.38, None, None, 0.04, 0.04, None),
        "TwGI subgoal 7b": _row(_GENEVAL, None, 0.57, None, None, 0.11, 0.16, None),
        "TwGI critique 7b, first picture": _row(_GENEVAL, 0.98, 0.51, 0.24, 0.84, 0.06, 0.08, 0.45),
        "TwGI critique 7b": _row(_GENEVAL, 0.98, 0.59, 0.23, 0.87, 0.12, 0.10, 0.48),
    },
    "dpg": {
        "Anole-7b, stage 1": _row(_DPG, 0.7416, 0.7031, 0.6942, 0.8012, 0.4360, 0.5832),
        "TwGI subgoal 7b": _row(_DPG, 0.7447, 0.7806, 0.7617, 0.8321, 0.4200, 0.6844),
        "TwGI critique 7b, first picture": _row(_DPG, 0.7781, 0.7145, 0.6924, 0.7834, 0.5800, 0.6283),
        "TwGI critique 7b": _row(_DPG, 0.7690, 0.7570, 0.7388, 0.8186, 0.5560, 0.6714),
    },
}
