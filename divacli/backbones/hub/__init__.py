"""Networks of Hugging Face transformers: their folders, image processors, and CLIP."""
