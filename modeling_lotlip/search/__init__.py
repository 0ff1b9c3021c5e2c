# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Search of one's own pictures: an index that follows a folder, queries, and the page. It may use the model, data,
embedding and evaluation; `lotlip search` and `lotlip app` use it.
"""
