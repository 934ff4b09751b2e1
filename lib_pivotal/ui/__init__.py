"""The page, in gradio; knows no host."""
