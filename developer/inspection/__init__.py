"""What is wrong with a protected model, tensor by tensor.

Two independent ways: every tensor is made again and compared with the file (`tensors.py`), and
both models run side by side (`layers.py`, `fault.py`). The first finds what was damaged, the
second also a plan that is wrong.
"""
