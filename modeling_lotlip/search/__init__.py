# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search in a folder of images: an index that follows the folder, queries, and the page. May import utils, data,
encoder, table and evaluation; `lotlip search`, `lotlip app` and the server use it.
"""
