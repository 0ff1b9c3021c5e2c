# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of the weights of a model before and after a training, measured, and the best of them saved."""
