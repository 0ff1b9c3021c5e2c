# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Contrastive training. `loop.py` reads from top to bottom, and calls the other files: `arguments.py` and `plan.py` say
what is to be done, `prepare.py` makes all parts, `step.py` takes a step, `outputs.py` writes. What may import what is
in `docs/contributing.md`.
"""
