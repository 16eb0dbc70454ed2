"""How does a model of scikit-learn become ONNX? By skl2onnx: with one input, or one for each column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import ExportError, need
from quern.onnx.learner import ML_OPSET, OPSET, Converted, Input, Learner, matrix_input


class ScikitLearn(Learner):
    """A model, or a pipeline, also with LightGBM or XGBoost inside."""

    takes_whole = True

    def __init__(self, model: Any) -> None:
        self.model = model
        names = getattr(model, "feature_names_in_", None)
        self.names = None if names is None else [str(name) for name in names]
        self.cells = getattr(model, "n_features_in_", None)

    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX."""
        inputs = self._inputs(columns)
        skl2onnx = need("skl2onnx")
        register(self.model)
        converted = skl2onnx.to_onnx(
            self.model,
            initial_types=[(taken.name, _kind(taken, columns)) for taken in inputs],
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={"zipmap": False} if hasattr(self.model, "predict_proba") else None,
        )
        return Converted(converted.SerializeToString(), inputs)

    def says(self, columns: Columns) -> Sequence[Any]:
        """Give labels and probabilities, or numbers, or what a transformer makes of rows."""
        x = self._fed(columns)
        if not hasattr(self.model, "predict"):
            return [self.model.transform(x)]
        answers = [self.model.predict(x)]
        if hasattr(self.model, "predict_proba"):
            answers.append(self.model.predict_proba(x))
        elif hasattr(self.model, "decision_function"):
            answers.append(self.model.decision_function(x))
        return answers

    def _fed(self, columns: Columns) -> Any:
        """Give rows as it was trained on them: as a frame, as texts alone, or as a matrix."""
        if self.names is not None:
            return columns.frame()
        if self._takes_texts(columns):
            return columns.matrix(dtype="object")[:, 0]
        return columns.matrix(dtype="object" if columns.texts else "float64")

    def _takes_texts(self, columns: Columns) -> bool:
        """Whether it takes texts and not rows of them, as vectorizers do, which count no columns."""
        return bool(columns.texts) and len(columns.names) == 1 and self.cells is None

    def _inputs(self, columns: Columns) -> list[Input]:
        if self._takes_texts(columns):
            return [Input(columns.names[0], columns.names, "object", flat=True)]
        if not columns.texts and not columns.whole and not _chooses_columns(self.model):
            return [matrix_input(columns, "scikit-learn")]
        if columns.texts == set(columns.names) and not _chooses_columns(self.model):
            return [Input("features", columns.names, "object")]
        kinds = dict.fromkeys(columns.texts, "object") | dict.fromkeys(columns.whole, "int64")
        return [Input(name, [name], kinds.get(name, "float32")) for name in columns.names]


def _kind(taken: Input, columns: Columns) -> Any:
    """Say in skl2onnx's words what an input takes."""
    kinds = need("skl2onnx.common.data_types")
    known = {"float32": kinds.FloatTensorType, "int64": kinds.Int64TensorType, "object": kinds.StringTensorType}
    return known[taken.dtype]([None] if taken.flat else [None, columns.width(taken.columns)])


def _chooses_columns(model: Any) -> bool:
    return any(type(part).__name__ == "ColumnTransformer" for part in _parts(model))


def _parts(model: Any) -> Iterator[Any]:
    """Give a model and those that it is made of."""
    yield model
    yield from model.get_params(deep=True).values()


def register(model: Any) -> None:
    """Tell skl2onnx of the models of other packages that a pipeline has inside."""
    packages = {type(part).__module__.partition(".")[0] for part in _parts(model)}
    if any(type(part).__name__.startswith("HistGradientBoosting") for part in _parts(model)):
        _mend_histograms()
    if "lightgbm" in packages:
        _register_lightgbm()
    if "xgboost" in packages:
        _register_xgboost()
    if "catboost" in packages:
        told = "fit the steps before it by themselves, and export CatBoost alone on derived columns"
        raise ExportError(f"skl2onnx does not know CatBoost inside of a Pipeline: {told}")


@cache
def _mend_histograms() -> None:
    """Let skl2onnx 1.20 write trees on histograms with whole numbers, where it has bools, which onnx refuses by now."""
    ensemble, known = need("sklearn.ensemble"), need("skl2onnx.common._registration")
    for kind in (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor):
        alias = f"Sklearn{kind.__name__}"
        convert, shapes = known.get_converter(alias), known.get_shape_calculator(alias)
        options = convert.get_allowed_options()
        need("skl2onnx").update_registered_converter(kind, alias, shapes, _whole(convert), options=options)


def _whole(convert: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    def converted(scope: Any, operator: Any, container: Any) -> None:
        def add_node(*args: Any, **attributes: Any) -> None:
            for name in attributes.keys() & {"nodes_missing_value_tracks_true"}:
                attributes[name] = [int(flag) for flag in attributes[name]]
            type(container).add_node(container, *args, **attributes)

        container.add_node = add_node
        try:
            convert(scope, operator, container)
        finally:
            del container.add_node

    return converted


def _register_lightgbm() -> None:
    from quern.onnx.lightgbm import check_categories, with_float32_thresholds

    lightgbm = need("lightgbm")
    convert = need("onnxmltools.convert.lightgbm.operator_converters.LightGbm").convert_lightgbm

    def exact(scope: Any, operator: Any, container: Any) -> None:
        check_categories(operator.raw_operator.booster_)
        operator.raw_operator = with_float32_thresholds(operator.raw_operator)
        convert(scope, operator, container)

    _register(lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", exact)
    _register(lightgbm.LGBMRegressor, "LightGbmLGBMRegressor", exact)


def _register_xgboost() -> None:
    from quern.onnx.xgboost import nameless

    xgboost = need("xgboost")
    convert = need("onnxmltools.convert.xgboost.operator_converters.XGBoost").convert_xgboost

    def plain(scope: Any, operator: Any, container: Any) -> None:
        operator.raw_operator = nameless(operator.raw_operator)
        convert(scope, operator, container)

    _register(xgboost.XGBClassifier, "XGBoostXGBClassifier", plain)
    _register(xgboost.XGBRegressor, "XGBoostXGBRegressor", plain)


def _register(kind: type, alias: str, convert: Callable[[Any, Any, Any], None]) -> None:
    shapes = need("skl2onnx.common.shape_calculator")
    is_classifier = alias.endswith("Classifier")
    need("skl2onnx").update_registered_converter(
        kind,
        alias,
        shapes.calculate_linear_classifier_output_shapes
        if is_classifier
        else shapes.calculate_linear_regressor_output_shapes,
        convert,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]} if is_classifier else {"split": None},
    )
