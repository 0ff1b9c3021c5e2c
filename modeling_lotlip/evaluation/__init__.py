# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a dual encoder can do and what it looks at: retrieval, classification, relevance, what of a text is used, how long
texts are. Uses the data and the embeddings; commands, training and the scripts of the paper use it.
"""
