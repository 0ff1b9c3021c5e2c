# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Embeddings on disk: storage, the index and its recall, thresholds and copies. May import utils, data and encoder;
search, serving and evaluation use it.
"""
