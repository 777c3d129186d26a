"""Networks put together from several checkpoints: does the shallow half of one work with the deep half of another?"""
