"""Stable Diffusion: dataset style inversion, generation of labelled sets, and image-to-image restyling.

Needs the extra ``diffusion`` (diffusers, transformers, accelerate); nothing else in this program does.
"""
