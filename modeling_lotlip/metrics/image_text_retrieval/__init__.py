# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The folder of the `evaluate` module `image_text_retrieval`, loadable with `evaluate.load(<this folder>)`."""
