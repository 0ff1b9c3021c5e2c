# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: timing in turns, the model as the original computes it, counts of a training step."""
