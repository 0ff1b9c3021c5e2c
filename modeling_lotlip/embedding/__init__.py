# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
From images and texts to embeddings, by any dual encoder: models, batches, rows of data sets, folders of embeddings and
the search in them. May import data, losses and metrics; evaluation, training, captioning and search use it.
"""
