# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What knows nothing of models: arguments, terminal, signals, output folders, files, keys, addresses, sub-captions."""
