# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A dual encoder as OpenAI's `/v1/embeddings`. May import utils, data, encoder, table and `search/guard.py`;
only the command `serve` uses it.
"""
