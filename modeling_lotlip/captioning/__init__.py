# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Long captions for images, by any captioner, and which of them are worth training on. May import `data` and
`encoder`; used by `lotlip recaption` and `lotlip filter`.
"""
