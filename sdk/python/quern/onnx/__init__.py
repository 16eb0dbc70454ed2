"""From a trained model to one that Quern serves: an ONNX file that was proved, and the definition of the model.

>>> table = client.training_set("arrival_delay_v1", spine)
>>> quern.onnx.export(model, table, "arrival_delay_v1", name="arrival_delay")

Models of scikit-learn, LightGBM, XGBoost, CatBoost, PyTorch and Keras, through the exporters that these have. Install
what it takes by `pip install 'quern[onnx]'`.
"""

from quern.onnx.errors import ExportError, ProofError
from quern.onnx.exported import Export, export
from quern.onnx.proof import Difference, Proof

__all__ = ["Difference", "Export", "ExportError", "Proof", "ProofError", "export"]
