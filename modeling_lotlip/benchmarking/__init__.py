# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Speed and operations: timing in turns, the model as the original computes it, FLOPs. Uses the model alone; the scripts
of `examples/benchmarks` and `examples/paper` use it.
"""
