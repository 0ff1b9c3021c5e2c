# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From images and texts to embeddings, by any dual encoder, and the table of them. May import data and metrics;
evaluation, training, captioning and search use it.
"""
