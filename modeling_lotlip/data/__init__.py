# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Datasets: loading, reading and packing them. May import the image processing and the root modules alone."""
