"""TensorBoard's tab GRADIENTS: where in depth and when in time does the gradient die or explode?"""
