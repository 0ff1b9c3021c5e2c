# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a dual encoder can do and what it attends to: retrieval, classification, relevance, which parts of a text
are used, how long texts are. Uses the data and the embeddings; commands, training and the scripts of the paper use it.
"""
