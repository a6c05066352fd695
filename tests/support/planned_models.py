"""All models whose memory is planned and measured."""

from planned_dense_models import (
    command_r,
    gemma,
    gemma2,
    gemma3,
    gemma3_270m,
    llama,
    nomic_bert,
    phi3,
    qwen3,
    starcoder2,
)
from planned_expert_models import deepseek2, gpt_oss, qwen3moe
from planned_recent_models import gemma4, glm4moe, granite_hybrid, mixtral, qwen2, qwen35
from planned_recurrent_models import falcon_h1, jamba, lfm2, mamba, qwen3next, rwkv7

MODELS = {
    builder.__name__: builder
    for builder in (
        llama,
        gemma,
        gemma3,
        gemma3_270m,
        qwen3,
        qwen3moe,
        deepseek2,
        mamba,
        lfm2,
        phi3,
        gpt_oss,
        nomic_bert,
        command_r,
        rwkv7,
        qwen3next,
        starcoder2,
        gemma2,
        jamba,
        falcon_h1,
        qwen2,
        mixtral,
        qwen35,
        glm4moe,
        granite_hybrid,
        gemma4,
    )
}
