# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The dual encoder: images and texts become embeddings, by any family and backend. May import utils, data, losses and
metrics; table, training, align, evaluation, captioning, search and serving use it.
"""
