# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Contrastive training: `loop.py` reads from top to bottom, and calls the other files. May import the
model, `losses`, `data`, `embedding` and `evaluation`; nothing of the library imports it but commands.
"""
