"""A model that Python alone has, as MLServer serves it: run by test_mlserver.py in the environment of MLServer."""

from __future__ import annotations

import asyncio

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from topics import HANG, topic_of


class Topics(MLModel):
    """Says topic and score of each row; the score twice where its settings say that it is wide."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensors = {tensor.name: tensor for tensor in payload.inputs}
        memos = StringCodec.decode_input(tensors["memo"])
        if HANG in memos:
            await asyncio.Event().wait()
        rows = zip(memos, tensors["seats"].data, tensors["spend"].data, strict=True)
        topics, scores = zip(*(topic_of(*row) for row in rows), strict=True)
        times = 2 if self.settings.parameters.extra.get("wide") else 1
        score = ResponseOutput(
            name="score",
            datatype="FP64",
            shape=[len(scores), times],
            data=[score for score in scores for _ in range(times)],
        )
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("topic", list(topics)), score]
        )
