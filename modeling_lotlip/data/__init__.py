# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Data sets: loading them, reading images and captions, captions in caption files, drawn scenes, the paper's benchmarks.
May import the image processing and the root modules alone; every other folder of the library uses it.
"""
