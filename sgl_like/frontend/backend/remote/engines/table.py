"""The engines that may be found at any address, by name."""

from __future__ import annotations

from collections.abc import Mapping

from sgl_like.frontend.backend.remote.dialect import Dialect
from sgl_like.frontend.backend.remote.engines.llama_cpp import LLAMA_CPP, LLAMA_CPP_PYTHON
from sgl_like.frontend.backend.remote.engines.mlc import MLC_LLM
from sgl_like.frontend.backend.remote.engines.nvidia import TENSORRT_LLM, TRITON
from sgl_like.frontend.backend.remote.engines.ollama import OLLAMA
from sgl_like.frontend.backend.remote.engines.openai import COMPATIBLE, OPENAI
from sgl_like.frontend.backend.remote.engines.sglang import SGL_LIKE, SGLANG
from sgl_like.frontend.backend.remote.engines.tgi import TGI
from sgl_like.frontend.backend.remote.engines.vllm import VLLM, VLLM_GUIDED

__all__ = ["DIALECTS"]

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OPENAI, COMPATIBLE, VLLM, VLLM_GUIDED, SGLANG, SGL_LIKE, LLAMA_CPP, LLAMA_CPP_PYTHON, OLLAMA, TGI, TENSORRT_LLM,
        TRITON, MLC_LLM,
    )
}  # fmt: skip
"""By name, for servers that may be at any address."""
